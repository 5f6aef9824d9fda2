# find_package(convoxel): the targets convoxel::convoxel (shared) and convoxel::static.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/convoxelTargets.cmake)
