#!/bin/sh
# Lays out an environment made from requirements/triton.txt as a Triton installation: DIR/bin/tritonserver, its libraries
# in DIR/lib/wheel, and DIR/backends, where the server looks by itself when DIR is /opt/tritonserver.
set -eu
directory=$1
version=$("$directory/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
packages=$directory/lib/python$version/site-packages
wheel=$packages/pytriton/tritonserver
ln -sfn "$wheel/bin/tritonserver" "$directory/bin/tritonserver"
ln -sfn "$packages/nvidia_pytriton.libs" "$directory/lib/wheel"
cp -R "$wheel/backends" "$directory/backends"
cp "$wheel/python_backend_stubs/$version/triton_python_backend_stub" "$directory/backends/python/"
