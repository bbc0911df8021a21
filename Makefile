# Two commands for everybody: make demo, make test. The rest is for developers.
.PHONY: demo test test-all test-rest test-gpu test-windows docs lint types unit bench soak gen clean
PY = .venv/bin/python

demo:                ## set up what is needed and run the main job: two processes share a rendered animation by name
	@scripts/setup.sh demo
	@.venv/bin/extmem demo

test:                ## set up what is needed; lint, generated code, types, the tests on Linux: some minutes
	@scripts/setup.sh dev
	@scripts/check.sh quick

test-all: test       ## `make test` and all the rest: what continuous integration runs
	@scripts/setup.sh docs
	@scripts/check.sh rest

test-rest:           ## what `make test-all` adds: slow tests, branch coverage, all tests on Windows under Wine
	@scripts/setup.sh dev
	@scripts/setup.sh docs
	@scripts/check.sh rest

test-windows:        ## the tests on Windows under Wine alone; the counts of both systems at the end
	@scripts/setup.sh dev
	@$(PY) -m scripts.windows test

docs:                ## the documentation as a searchable site in build/docs; a broken link or reference is an error
	@scripts/setup.sh docs
	@$(PY) -m scripts.site

lint:                ## ruff alone
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

types:               ## mypy --strict for both platforms, side by side
	@$(MAKE) -s -j2 --output-sync types-linux types-win32

types-%:
	@$(PY) -m mypy --platform $* --cache-dir .mypy_cache/$*

unit:                ## the quick tests alone
	@$(PY) -m pytest tests/unit tests/rules tests/property -q

test-gpu:            ## on a machine with an NVIDIA GPU, where EXTMEM_EXPECT=vulkan,cuda,torch makes a skip a failure; PY=… is its Python
	@$(PY) -m pytest tests/gpu -v -p no:cacheprovider

bench:               ## every benchmark, with the alternative in the same run
	@.venv/bin/extmem bench

soak:                ## nightly: fuzzed messages, threads, interrupts, other users, rounds of kill -9; prints a JSON list
	@scripts/setup.sh dev
	@$(PY) -m scripts.soak

gen:                 ## regenerate what comes from the registry
	@$(PY) -m codegen

clean:               ## forget the environment and the caches
	rm -rf .venv .windows .swiftshader .results .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis build src/*.egg-info
