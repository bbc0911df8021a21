# Two commands for everybody: make demo, make test. The rest is for developers.
.PHONY: demo test test-gpu test-windows lint types unit bench soak gen clean
PY = .venv/bin/python
EXPECT ?= $(EXTMEM_EXPECT)

demo:                ## set up what is needed and run the main job: two processes share a rendered animation by name
	@scripts/setup.sh demo
	@.venv/bin/extmem demo

test:                ## set up what is needed; lint, types, all tests on Linux, coverage; all tests on Windows under Wine
	@scripts/setup.sh dev
	@scripts/check.sh

test-windows:        ## the last step of `make test` alone; the counts of both systems at the end
	@scripts/setup.sh dev
	@$(PY) -m scripts.windows test

lint:                ## ruff alone
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

types:               ## mypy --strict for both platforms
	@$(PY) -m mypy --platform linux && $(PY) -m mypy --platform win32

unit:                ## the quick tests alone
	@$(PY) -m pytest tests/unit tests/rules tests/property -q

test-gpu:            ## on a machine with an NVIDIA GPU, where EXTMEM_EXPECT=vulkan,cuda,torch makes a skip a failure; PY=… is its Python
	@$(PY) -m pytest tests/gpu -v -p no:cacheprovider

bench:               ## every benchmark, with the alternative in the same run
	@.venv/bin/extmem bench

soak:                ## nightly: 100,000 fuzzed messages and descriptors, 500 rounds of kill -9; prints a JSON list
	@scripts/setup.sh dev
	@$(PY) -m scripts.soak

gen:                 ## regenerate what comes from the registry
	@$(PY) -m codegen

clean:               ## forget the environment and the caches
	rm -rf .venv .windows .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis build src/*.egg-info
