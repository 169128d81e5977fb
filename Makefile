# make demo   install into .venv if need be, run cases/digits_mlp.toml, print the error table and the report's path
# make test   the whole suite: lint, types, import contracts, tests
# make smoke  the cases for a GPU, some steps of each, on generated images
# make docs   the site, into build/site: open build/site/index.html
# make linkcheck  do the site's links to other sites still lead somewhere? Asks them
# make bench  the benchmarks, JSON on standard output
# make pages  the numbers in README and docs from benchmarks/results

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test smoke docs linkcheck lint format bench pages picture clean

demo: $(INSTALLED)
	$(BIN)/nm-ode run cases/digits_mlp.toml

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

smoke: $(INSTALLED)
	$(BIN)/nm-ode run resnet18_cifar10 --smoke
	$(BIN)/nm-ode run vgg16_tiny_imagenet --smoke
	$(BIN)/nm-ode run vgg16_bn_tiny_imagenet --smoke

docs: $(INSTALLED)
	$(BIN)/python -m sphinx -W --keep-going -q -j 2 docs build/site

linkcheck: $(INSTALLED)
	NM_ODE_GALLERY=0 $(BIN)/python -m sphinx -b linkcheck -q docs build/linkcheck

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python benchmarks/gradient_cost.py
	$(BIN)/python benchmarks/flow_solve.py
	$(BIN)/python benchmarks/work_precision.py
	$(BIN)/python benchmarks/method_choice.py
	$(BIN)/python benchmarks/symmetry.py
	$(BIN)/python benchmarks/modified_flow.py
	$(BIN)/python benchmarks/bridge.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/recorder.py

pages: $(INSTALLED)
	$(BIN)/python benchmarks/pages.py

picture: demo
	$(BIN)/nm-ode run cases/digits_bn_sgd.toml cases/orders_adam.toml
	$(BIN)/python benchmarks/pictures.py --save
	$(BIN)/python benchmarks/pages.py

# One venv for everything. It is made anew where an installation was cut off half-way.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "nm_ode needs Python 3.11 or newer; say make PYTHON=..."'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,dev,docs]'
	touch $@

clean:
	rm -rf .venv build dist results .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
