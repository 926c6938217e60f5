# demo: watch it work on a virtual truck      test: lint, types and all tests      soak: the tests at full length
# bench: the performance table                lab: the system as shipped on a tagged trunk
# clean: remove what these have made
.PHONY: demo test soak bench lab clean checks guests setup packages bench-packages servers engines image
MAKEFLAGS += --no-print-directory

PYTHON := $(shell for p in /usr/bin/python3 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

ENGINES := 20.10 28.5
# seconds until a test ends with the stacks of all threads that no signal ends: they wait for each other in a library
HANG := 900

demo: ENGINES := 20.10
demo: setup engines
	@.venv/bin/python -m tests.lab.demo

# The machines with a kernel of their own take minutes of one processor; nothing else waits for them.
test: setup engines servers image
	@$(MAKE) $(if $(LANWARD_SOAK),,-j2) HANG=$(HANG) checks guests

checks:
	@.venv/bin/ruff check --quiet
	@.venv/bin/ruff format --quiet --check
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/pytest --quiet --ignore tests/lab/test_trunk.py \
		-o faulthandler_timeout=$(HANG) -o faulthandler_exit_on_timeout=true

guests:
	@.venv/bin/pytest --quiet tests/lab/test_trunk.py

soak: export LANWARD_SOAK = 1
soak: HANG := 7200
soak: ENGINES += 26.1
soak: test

lab: export LAB_QEMU = $(CURDIR)/.cache/lab/kernel
lab: setup engines image
	@sh tests/lab/kernel.sh
	@.venv/bin/pytest --quiet -s tests/lab/test_trunk.py

bench: setup bench-packages
	@.venv/bin/python -m tests.bench

setup: packages .venv/installed

packages:
	@sh tests/lab/packages.sh

bench-packages:
	@sh tests/lab/packages.sh bench

servers:
	@sh tests/wire/servers.sh

engines:
	@sh tests/lab/engines.sh $(ENGINES)

image: engines
	@sh tests/lab/image.sh

.venv/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed"; exit 1; }
	@echo "setting up .venv"
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check \
		--editable '.[dev]' --config-settings editable_mode=compat
	@touch $@

clean:
	@test "$$(id -u)" != 0 || ! test -x .venv/bin/python || .venv/bin/python -m tests.lab.truck --sweep
	@rm -rf .venv .cache build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
