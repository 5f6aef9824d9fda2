"""Calls that work of what has no example in its docstring, since it needs files, runs or objects of other packages."""

MORE_EXAMPLES = {
    "program": """
net = torch_nn.Sequential(torch_nn.Conv2d(1, 4, 3, padding=1), torch_nn.ReLU(), torch_nn.Conv2d(4, 2, 1)).eval()
x = torch.zeros(1, 1, 8, 8)
program = cx.compile(net, x, threads=1, tune=False, algorithm="auto", precision="float32", verify=False)
program(x.numpy())
program(x)
program.prepare(x)
program.profile(x)
program.explain(x)
program.memory(x)
program.tiling(x.numpy(), tile=4, exact=True)
program.tiled(x.numpy(), tile=4, exact=True)
program.save("a.cvx")
cx.load("a.cvx", threads=1, algorithm="auto", precision=None)
program.replace(threads=2)
""",
    "load": """
cx.load(scene.path("net.onnx"), threads=1)
cx.load(str(scene.path("net.cvx")), threads=1)
""",
    "data": """
from pathlib import Path
image = np.zeros((1, 6, 5, 4), np.float32)
cx.data.write_image("a.nii.gz", image, affine=np.eye(4), spacing_mm=None)
cx.data.write_image("a.png", np.zeros((3, 4, 5), np.uint8))
cx.data.write_label("b.nii.gz", np.zeros((6, 5, 4), np.uint8), affine=None, spacing_mm=(1.0, 2.0, 3.0))
cx.data.read_image("a.nii.gz", dims=3, channels=1)
cx.data.check(str(scene.path("images")), "classify")
cx.data.guess_task(scene.path("volumes"))
images = cx.data.load(scene.path("images"), "classify", validation=0.25, gap=0, seed=0, bad="stop")
images.split("train")
images.class_of(images.train.entries[0])
images.problems()
cx.data.load(str(scene.path("volumes")), "segment", validation=1)
cx.data.Intensity((0.0,), (1.0,), (0.0,), (1.0,))
cx.data.Sample("a", image, 1)
cx.data.Problem("a", "b")
""",
    "pictures": """
from convoxel.draw import Figure, Slice, beside, overlay, panels, png, save_overlay
figure = cx.draw.conv(5, 3)
beside([figure.still(), figure.still()], "two", gap=1.0, below=False)
figure.save("a.svg", theme="light", scale=1.0)
figure.save("a.png", theme=None, scale=1.0)
figure.still(frame=0)
figure.strip(frames=2, columns=1)
figure.svg(theme="dark")
figure.html(theme="auto")
figure.picture(theme="light", scale=1.0)
picture = overlay(np.zeros((8, 8)), np.zeros((8, 8), int), np.ones((8, 8), int), classes=("a", "b"))
png(picture)
save_overlay("b.png", np.zeros((8, 8)))
panels(np.zeros((8, 8)), np.zeros((8, 8), int), height=30)
Slice(np.zeros((4, 4)), (1.0, 1.0), None, 0, (0, 1), (False, False))
""",
    "descriptions": """
net = cx.models.build("unet", 2, in_channels=1, num_classes=2, levels=1, width=4)
summary = cx.inspect.describe(net, (1, 1, 16, 16), object_size=4)
summary.to_csv("a.csv", depth=1)
summary.view(depth=1, columns=("params", "macs"))
summary.at_depth(1)
cx.describe(scene.path("net.onnx"), (1, 3, 8, 8))
cx.describe("unet", (1, 1, 16, 16), levels=1, width=4)
cx.draw.network(net, (1, 1, 16, 16), depth=1)
cx.draw.memory(net, (1, 1, 16, 16))
cx.draw.field(net, (1, 1, 16, 16))
cx.draw.funnel(net, (1, 1, 16, 16), axis=-1)
""",
    "networks": """
cx.models.build("resnet18", 2, in_channels=1, num_classes=2, width=0.1)
cx.models.build("course_vgg", 2, 3, 2, width=0.25)
cx.models.names("res*", task="classify")
cx.models.entry("unet")
cx.models.info("unet")
net = cx.models.build("unet", 1, 1, 2, levels=1, width=4)
net(torch.zeros(1, 1, 16))
net.check_input((1, 1, 16))
net.nearest_sizes(15, axis=0)
small = cx.models.build("course_vgg", 2, in_channels=3, num_classes=2, width=0.25)
cx.models.load_weights(small, scene.path("classifier"), channels="average", inflate="average")
""",
    "engine": """
from convoxel import native
native.known_winners(threads=1, isa=None, algorithm="auto")
native.measure_bandwidth(threads=1, size_bytes=1 << 20)
native.measure_ceiling(threads=1, isa=None, rounds=1000)
w = np.ones((4, 1, 1, 3, 3), np.float32)
convolution = native.Convolution(w, None, stride=(1, 1, 1), padding_low=(0, 1, 1), dilation=(1, 1, 1), groups=1)
src, dst = native.View.dense(1, 0, (1, 1, 8, 8, 1)), native.View.dense(2, 0, (1, 1, 8, 8, 4))
plan = native.Plan(0, 2, threads=1, isa=None)
plan.convolve(convolution, src, dst, None, activation="relu")
plan.run([np.zeros(64, np.float32), np.zeros(256, np.float32)])
plan.profile([np.zeros(64, np.float32), np.zeros(256, np.float32)])
""",
    "layers": """
from convoxel import nn
nn.Conv1d(2, 4, 3, stride=1, padding="same", padding_mode="circular")(torch.zeros(1, 2, 9))
nn.Conv2d(2, 4, 3, stride=2, padding=1)(torch.zeros(1, 2, 9, 9))
nn.Conv3d(2, 4, (1, 3, 3), groups=2, bias=False)(torch.zeros(1, 2, 5, 5, 5))
nn.ConvTranspose1d(2, 4, 3, stride=2, padding=1, output_padding=1)(torch.zeros(1, 2, 9))
nn.ConvTranspose2d(2, 4, 2, stride=2)(torch.zeros(1, 2, 5, 5))
nn.ConvTranspose3d(2, 4, 2, stride=2)(torch.zeros(1, 2, 3, 3, 3))
nn.start_weights(nn.Conv2d(2, 4, 3), negative_slope=0.1)
nn.start_network(nn.Conv2d(2, 4, 3), conv="fan_out", linear=None)
""",
    "reports": """
from convoxel import report
run = report.read_run(scene.path("classifier"))
report.render_report(run)
""",
    "search": """
from convoxel import search
space = search.Space(network="unet", shape=(1, 1, 16, 16), vary={"levels": (1,), "width": (4, 8)})
search.find("unet", (1, 1, 16, 16), vary={"levels": (1,), "width": (4, 8)}, most=4, seed=0)
search.Scale(width=1.0, depth=1.0, resolution=1.0)
""",
    "training": """
from convoxel import train
config = train.configure_run({"task": "classify", "data": str(scene.path("images")), "output": "run", "epochs": 1})
train.TrainConfig(task="classify", data="images", output="run", epochs=1, threads=1)
train.load_model(scene.path("classifier"), which="best")
train.started_from(scene.path("classifier"))
train.evaluate(scene.path("classifier"), scene.path("images"), engine="convoxel", split="validation", which="best")
train.predict(scene.path("classifier"), scene.path("grey"), "predicted", engine="convoxel", exact=False, tile=None)
train.Progress(phase="train", step=0)
""",
}
