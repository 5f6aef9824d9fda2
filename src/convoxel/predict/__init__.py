"""Prediction with trained networks: whole images from tiles, metrics and evaluation.

Read the files in this order: ``trained_run`` (a network with its configuration and the facts of its data),
``normalisation`` (of intensities), ``tile_size`` and ``sliding_window`` (images of any size, tile by tile),
``network_call`` (PyTorch or our engine), ``mirror`` (mirrored copies), ``entries`` (records of a configuration),
``prediction_rule`` (what a run says of tiles and copies), ``class_shares``, ``member`` (of an ensemble), ``inference``
(all of these as one ``Predictor``, which takes images as stored and answers on their own grid); then ``clean_up`` (by
connected components), ``share_rounding``, ``case_prediction`` (an image file to a label map and maps of shares) and
``prediction_table`` (to rows); for folders of them ``case_files`` (which images, which outputs), ``case_key`` and
``case_manifest`` (what is done already), ``overlap`` and ``case_batch`` (steps that overlap, cases that fail by
themselves), ``stage_clock``, ``archive`` (the way through all of them), ``ray_workers`` (in other processes) and
``file_prediction``; ``surface_distance``, ``metric`` and the metrics of each task, ``segmentation_metric`` and
``classification_metric``, which ``metric_table`` lists; ``metrics`` (what one pass over a split counts),
``case_statistics`` (intervals and comparisons), ``figures``, ``class_curves``, ``evaluation``; ``case_table`` (CSV) and
``example_pictures``. Of explanations: ``explained_score`` (the number that is explained), ``explained_image`` (the part
of an image that it reads, and the way back), ``explanation_method`` and ``attribution`` (the methods), ``explanation``.
``run_progress`` is what training and prediction report.

Nothing here reads run folders or trains: ``convoxel.train`` does, and validates through this package.
"""
