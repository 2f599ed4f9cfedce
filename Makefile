PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

NATIVE := dllama_ops/native

MINUTES := 10

.PHONY: test lint types unit demo fuzz fuzz-asan faults soak test-native test-native-asan test-native-tsan test-aarch64 clean

# Text on a cluster of two processes, with the small model that comes with the package.
demo: $(STAMP)
	$(BIN)/dllama-root inference --prompt "ROMEO:" --steps 128 --temperature 0.7 --seed 7 --local-workers 1

# Everything that must hold: style, types, import direction, tests.
test: lint types unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

unit: $(STAMP)
	$(BIN)/pytest

# The native core's C++ tests: on every instruction set of this processor, plain or with sanitizers, and compiled
# for 64-bit ARM (needs g++-aarch64-linux-gnu and qemu-user-static). They need CMake and a C++17 compiler.
test-native test-native-asan test-native-tsan test-aarch64:
	cmake -S $(NATIVE) -B build/$@ -DDLLAMA_TESTS=ON $(NATIVE_OPTIONS)
	cmake --build build/$@ --parallel 2
	ctest --test-dir build/$@ --output-on-failure --verbose

test-native-asan: NATIVE_OPTIONS := -DDLLAMA_SANITIZE=address,undefined
test-native-tsan: NATIVE_OPTIONS := -DDLLAMA_SANITIZE=thread
test-aarch64: NATIVE_OPTIONS := -DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/tests/native/cpp/aarch64.cmake

# Random input to the parser, to the binder with every kernel set, and to a running worker; findings stay in
# tests/fuzz/corpus. With address sanitizer: the binder alone, on native kernels that are built for it.
fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

fuzz-asan: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check nanobind
	cmake -S $(NATIVE) -B build/$@ -DDLLAMA_SANITIZE=address,undefined -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python \
		-Dnanobind_DIR=$$($(BIN)/python -m nanobind --cmake_dir)
	cmake --build build/$@ --parallel 2
	LD_PRELOAD=$$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 \
		$(BIN)/python -m tests.fuzz --minutes $(MINUTES) --target binder --extension build/$@/_core*.so

# Every fault at every point of a session; the tests take a few of them.
faults: $(STAMP)
	DLLAMA_FAULTS=all $(BIN)/pytest tests/faults

# Text generated again and again on one worker process, with faults in between: the same text every time.
soak: $(STAMP)
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES)

$(STAMP): pyproject.toml $(NATIVE)/CMakeLists.txt $(wildcard $(NATIVE)/src/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
