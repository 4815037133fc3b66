#!/bin/sh
# Prints a Python that can build .venv: the newest of 3.13, 3.12 and 3.11 that runs, else a newer python3.
# In sh, because before this nothing else can be relied on.
#   find-python.sh [VERSION]    with VERSION (3.13): only that one; exit status 1 and no message if it is not here
set -u
blanks=$IFS lacking='' pyenv=$(pyenv root 2>/dev/null)

# With -E and -s: a PYTHONHOME of another Python would let none of them run.
# A file on PATH is no proof: pyenv's shims refuse to run, Debian's python3 comes without ensurepip.
try() {
    [ -x "$1" ] && "$1" -Esc 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || return 0
    "$1" -Esc 'import ensurepip, venv' 2>/dev/null || { lacking=$1; return 0; }
    echo "$1"
    exit 0
}

for version in ${1:-3.13 3.12 3.11 3}; do
    IFS=:
    for directory in $PATH "$pyenv/versions/$version".*/bin; do
        IFS=$blanks
        try "$directory/python$version"
    done
    IFS=$blanks
done

[ $# -eq 0 ] || exit 1
if [ -n "$lacking" ]; then
    echo "error: $lacking cannot create virtual environments. Debian, Ubuntu: apt install python3-venv" >&2
else
    found=$(python3 --version 2>/dev/null) || found='no python3'
    echo "error: Python 3.11 or newer is needed, here is $found. Debian, Ubuntu: apt install python3 python3-venv" >&2
fi
exit 1
