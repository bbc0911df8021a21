# `make demo` and `make test` are for every user, the other targets for developers.
.PHONY: demo test test-all test-rest test-frameworks test-gpu test-windows docs lint types unit bench soak gen clean
PY = .venv/bin/python

demo:                ## set up a .venv and run the demo: an animation goes to two processes while its writer is killed
	@scripts/setup.sh demo
	@.venv/bin/extmem demo

test:                ## set up a .venv; lint, generated code, types, the quick tests on Linux: some minutes
	@scripts/setup.sh dev
	@scripts/check.sh quick

test-all: test       ## `make test` and `make test-rest`: what continuous integration runs
	@scripts/setup.sh docs
	@scripts/setup.sh frameworks
	@scripts/check.sh rest

test-rest:           ## slow tests, branch coverage, all tests on Windows under Wine
	@scripts/setup.sh dev
	@scripts/setup.sh docs
	@scripts/setup.sh frameworks
	@scripts/check.sh rest

test-frameworks:     ## only the tests that need PyTorch, JAX, PyArrow, safetensors, pandas or Polars
	@scripts/setup.sh frameworks
	@scripts/check.sh frameworks

test-windows:        ## only the tests on Windows under Wine; prints the counts of both systems at the end
	@scripts/setup.sh dev
	@$(PY) -m scripts.windows test

docs:                ## build the documentation as a searchable site in build/docs; a broken link or reference is an error
	@scripts/setup.sh docs
	@$(PY) -m scripts.site

lint:                ## only ruff: check and format
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

types:               ## mypy --strict for both platforms at the same time
	@$(MAKE) -s -j2 --output-sync types-linux types-win32

types-%:
	@$(PY) -m mypy --platform $* --cache-dir .mypy_cache/$*

unit:                ## only the unit, rule and property tests
	@$(PY) -m pytest tests/unit tests/rules tests/property -q

test-gpu:            ## on a machine with an NVIDIA GPU, where EXTMEM_EXPECT=vulkan,cuda,torch makes a skip a failure; PY=… is its Python
	@$(PY) -m pytest tests/gpu -v -p no:cacheprovider

bench:               ## run every benchmark, each with an alternative in the same run
	@.venv/bin/extmem bench

soak:                ## the long test: fuzzed messages, threads, interrupts, other users, rounds of kill -9; prints a JSON list
	@scripts/setup.sh dev
	@$(PY) -m scripts.soak

gen:                 ## write vk/_generated again from the registry
	@$(PY) -m codegen

clean:               ## remove the environments and the caches
	rm -rf .venv .frameworks .windows .swiftshader .results .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis build src/*.egg-info
