# make demo: the whole road on this machine.   make test: every test.   make lint: format, style, types, imports.
PYTHON ?= python3
BIN    := .venv/bin
# For pip: .ci/run compiles what was installed by itself.
INSTALL_FLAGS ?=

.PHONY: aarch64 chaos outage compiler demo test test-wheel runtimes lint style mypy pyright imports format schema steady systemd takeover throughput coverage foreign-suites hostile malformed telemetry broker database node-red clean

demo: .venv/ready
	$(BIN)/edgekit demo

# Each worker begins with a half of its own, so that what a file's tests share is made once, and then helps the other.
test: .venv/ready
	$(BIN)/pytest -n auto --dist worksteal

# Builds both wheels and runs a bundle with the device's wheel alone in an empty environment.
test-wheel: .venv/ready
	$(BIN)/pytest -m wheel tests/packaging

# The device's wheel on an emulated Raspberry Pi 4: Debian's arm64 Python and the real aarch64 wheels under QEMU's user
# mode (about 160 MB, kept in the user's cache; nothing is installed). Debian only. Takes some minutes.
aarch64: .venv/ready
	$(BIN)/pytest -m aarch64 tests/packaging

# The unit under a real systemd in namespaces of its own: start, reload, crash, watchdog, stop. Debian, root.
systemd: .venv/ready
	$(BIN)/pytest -m systemd tests/packaging

# The flow of examples/node-red in a real Node-RED, from npm (200 MB, kept in the user's cache).
node-red: .venv/ready
	$(BIN)/pytest -m node_red tests/e2e

# Every estimator on several releases of onnxruntime, from their wheels (about 35 MB each, kept in the user's cache).
runtimes: .venv/ready
	$(BIN)/pytest -m runtimes tests/converters

lint: style mypy pyright imports

style: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

mypy: .venv/ready
	$(BIN)/mypy

pyright: .venv/ready
	$(BIN)/pyright

imports: .venv/ready
	$(BIN)/lint-imports

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Writes docs/formats/*.schema.json from the types in edgekit_contracts.
schema: .venv/ready
	$(BIN)/python -m edgekit_contracts.schema docs/formats

# 100,000 records of 16 devices under 200 kills, cuts of the network and full disks: nothing lost, nothing twice.
# BROKER: mosquitto, nats, nats-cluster or amqtt. STORE: sqlite, or postgresql with three collectors.
BROKER ?= mosquitto
STORE  ?= sqlite
chaos: .venv/ready
	$(BIN)/python -m benchmarks.chaos --broker $(BROKER) --store $(STORE)

# Three collectors on PostgreSQL, one killed: seconds until the others store what it would have.
takeover: .venv/ready
	$(BIN)/python benchmarks/takeover.py

# What telemetry costs: bytes of a window and of a day at each budget, beside whylogs and Mosquitto's own counters.
telemetry: .venv/ready
	$(BIN)/python benchmarks/telemetry.py

# A day without a collector at ten times what the outbox holds: produced, merged, given up, stored, on both sides.
outage: .venv/ready
	$(BIN)/python -m benchmarks.outage

# What edgekit collect stores a second, beside a C subscriber of the same Mosquitto and the collector that one writes
# first. `make steady`: 20,000 windows/s for ten minutes, lag and memory (20 GB of disk).
throughput: .venv/ready
	$(BIN)/python benchmarks/collector.py

steady: .venv/ready
	$(BIN)/python benchmarks/collector.py --minutes 10

# Writes docs/coverage.md from a run over every scikit-learn estimator.
coverage: .venv/ready
	$(BIN)/edgekit convert --coverage > docs/coverage.md

# Writes docs/foreign-suites.md: the tests of sklearn-onnx and onnxmltools, run against edgekit. Both are checkouts.
foreign-suites: .venv/ready
	$(BIN)/python benchmarks/foreign_suites.py --sklearn-onnx "$(SKLEARN_ONNX)" --onnxmltools "$(ONNXMLTOOLS)" > docs/foreign-suites.md

# Ten thousand hostile messages at a running collector: each counted, none stored under another's name, no long wait.
hostile: .venv/ready
	$(BIN)/python benchmarks/hostile.py

# Ten thousand malformed requests against a running service: the right status each, no crash, no leak.
malformed: .venv/ready
	$(BIN)/python benchmarks/malformed.py

# The brokers that some tests start for themselves (Debian and Ubuntu). Without them those tests skip; in CI they fail.
broker:
	for name in mosquitto nats-server; do command -v $$name >/dev/null || test -x /usr/sbin/$$name || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $$name; } || exit 1; done

# PostgreSQL, which some tests start for themselves too.
database:
	test -n "$$(ls /usr/lib/postgresql/*/bin/postgres 2>/dev/null)" || { apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql; }

# The C compiler that builds examples/c for a test.
compiler:
	command -v cc >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev; }

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv || { echo "make: 'python3 -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(INSTALL_FLAGS) --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv dist
