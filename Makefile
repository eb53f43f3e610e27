# make demo, make test and make check install what they need into .venv first.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: demo test check bench format install js clean
install: $(VENV)/.installed

COMPILED := $(addprefix protocol/secagg/passes/,_compiled.c loops.h)
$(VENV)/.installed: pyproject.toml constraints.txt scripts/install.sh $(COMPILED)
	PYTHON="$(PYTHON)" sh scripts/install.sh "$(VENV)"
	touch $@

JS := mobile_stubs/js
PAGE := signaling/join/files.json
js: $(JS)/node_modules/.installed $(PAGE)

$(JS)/node_modules/.installed: $(JS)/package.json $(JS)/package-lock.json scripts/install_js.sh
	sh scripts/install_js.sh
	mkdir -p $(@D) && touch $@

$(PAGE): $(JS)/node_modules/.installed $(JS)/build-join.mjs $(shell find $(JS)/src -type f)
	sh scripts/build_join.sh

demo: install
	$(BIN)/peerplan demo $(ARGS)

test: install js check
	$(BIN)/python -m pytest --cov --cov-report=term $(ARGS)

check: install $(JS)/node_modules/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	sh scripts/check_js.sh

bench: install
	$(BIN)/python -m benchmarks $(ARGS)

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -f protocol/secagg/passes/*.so
	rm -rf $(VENV) build dist *.egg-info .coverage* peerplan-demo $(JS)/node_modules $(JS)/dist signaling/join
