# make setup   a Python environment in .venv with the wheel, built in release mode
# make demo    heat a simulated chamber to 45 C, lose the link on the way, turn off; judge the log
#              FAULT=mute|hang|fault  something breaks; the demo must fail
#              DIALECT=stock|esphome|stock_mqtt  how the simulated device speaks [stock]; the latter
#              two at a private broker, for which mosquitto has to be installed
# make test    everything that must hold; a table at the end
# make soak    24 hours of a printer in which something goes wrong each minute, 10,000 reconnects, and
#              a million random histories (HISTORIES=N for another number)
# make audit   what is known about the crates and packages of others; the oldest crates that will do;
#              the wheel is the same when it is built elsewhere. Needs the network
# make bench   measure; make bench-commit makes the last run docs/performance.md
# make wheels  what is given out, for three kinds of processor, tried on each (see .ci/wheels); as root
#
# make test, and make demo with a DIALECT that needs it, install mosquitto if it is missing and they
# may without asking: as root or with passwordless sudo, where there is apt-get (see .ci/packages).
#
# With KLIPPER_DIR=CHECKOUT KLIPPY_PYTHON=INTERPRETER the demo runs, and the tests run once more,
# inside that Klipper or Kalico; the wheel is installed into that interpreter's environment.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WHEELS := target/wheels
DIALECT ?= stock

# rustup's place, for a shell that was open before rustup ran.
export PATH := $(PATH):$(HOME)/.cargo/bin
export KLIPPER_DIR KLIPPY_PYTHON DIALECT FAULT

SOURCES := Cargo.toml Cargo.lock pyproject.toml README.md LICENSE \
	$(shell find src -name '*.rs') \
	$(shell find python -name '*.py' -o -name '*.pyi' -o -name py.typed)

.PHONY: setup demo test lint audit format bench bench-commit soak wheels clean klippy-python packages
.DELETE_ON_ERROR:

setup: $(VENV)/.wheel

$(VENV)/.tools: pyproject.toml .ci/need
	@.ci/need "$(PYTHON)"
	@# One whose interpreter is gone, or that was moved, is of no use.
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || rm -rf $(VENV)
	test -d $(VENV) || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --upgrade --group dev
	@touch $@

$(WHEELS)/.built: $(VENV)/.tools .ci/wheel.py $(SOURCES)
	@.ci/need "$(PYTHON)"
	$(BIN)/python .ci/wheel.py $(WHEELS)
	@touch $@

# Not editable: what is tested is what a user gets.
$(VENV)/.wheel: $(WHEELS)/.built
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps $(WHEELS)/*.whl
	@touch $@

klippy-python: setup # the wheel in the environment of a real klippy
ifneq ($(KLIPPY_PYTHON),)
	"$(patsubst ~/%,$(HOME)/%,$(KLIPPY_PYTHON))" -m pip install --quiet --disable-pip-version-check \
		--force-reinstall --no-deps $(WHEELS)/*.whl
endif

packages:
	@.ci/packages

demo: setup klippy-python $(if $(filter-out stock,$(DIALECT)),packages)
	@$(BIN)/python demo/demo.py

test: setup klippy-python packages
	@$(BIN)/python .ci/check.py

lint: setup
	@$(BIN)/python .ci/check.py --only lint

audit: setup
	$(BIN)/python -m pip install --quiet --upgrade --group audit
	@$(BIN)/python .ci/check.py --only audit

format: $(VENV)/.tools
	cargo fmt
	$(BIN)/ruff check --quiet --fix
	$(BIN)/ruff format

bench: setup klippy-python
	@$(BIN)/python benches/run.py

bench-commit: # measures nothing
	@$(BIN)/python benches/commit.py

HISTORIES ?= 1000000
soak: setup klippy-python
	@$(BIN)/python benches/soak.py
	HISTORIES=$$(( $(HISTORIES) / 2 )) cargo test --locked --profile soak --lib -- --nocapture histor

wheels: $(VENV)/.tools
	@PYTHON=$(BIN)/python .ci/wheels $(PROCESSORS)

clean:
	rm -rf target $(VENV) .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
