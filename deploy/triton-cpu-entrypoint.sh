#!/bin/sh
# Runs the given tritonserver command with backends that the current user owns: the Python backend sets the permissions
# of its stub at every start, whoever owns the image's files, and gives up when it may not.
set -eu
backends=${TMPDIR:-/tmp}/backends
rm -rf "$backends"
cp -R "${OPT:-/opt}/tritonserver/backends" "$backends"
exec "$@" "--backend-directory=$backends"
