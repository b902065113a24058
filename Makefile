# Every target sets up what it needs: `make` alone lists them.

STUDY ?= embedded
PYTHON ?= python3
RUNS ?= 3# runs that check computes again
SEED ?= 0
JOBS ?= 2# notebooks drawn, or test files run, at the same time
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
# A target's name is its notebook's up to the first "_": fig2 draws notebooks/fig2_*.ipynb.
FIGURES := $(sort $(wildcard notebooks/fig*.ipynb)) notebooks/tasks.ipynb notebooks/claims.ipynb
FIGURE_NAMES := $(foreach n,$(FIGURES),$(firstword $(subst _, ,$(notdir $(basename $(n))))))
notebook_of = $(notdir $(firstword $(wildcard notebooks/$(1)_*.ipynb notebooks/$(1).ipynb)))

# A study's name becomes a folder's, and a word of commands: what is left of it without the letters
# that it may have is wrong. This is the one place that looks.
LETTERS := a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9 -
without = $(if $(1),$(call without,$(wordlist 2,99,$(1)),$(subst $(firstword $(1)),,$(2))),$(2))
ifneq ($(words $(STUDY))$(call without,$(LETTERS),$(STUDY))$(filter -%,$(STUDY)),1)
$(error STUDY: expected the name of a study, of a-z, 0-9 and -, found '$(STUDY)'. Write STUDY=quick, \
  or leave it out; `make` alone lists them)
endif

SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help figures results $(FIGURE_NAMES) lab check-figures test test-full architectures coverage mutation bench agreement settings lint notebooks lock audit clean

help: ## print the targets
	@echo "make TARGET [STUDY=tiny|quick|embedded|paper-suite-270m|paper]   (STUDY is $(STUDY))"; echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1 \2/p' $(firstword $(MAKEFILE_LIST)) \
	  | while read -r name text; do printf '  %-14s%s\n' "$$name" "$$text"; done
	@printf '  %s\n                %s\n' "$(FIGURE_NAMES)" "draw one figure of STUDY"

# The environment is stale when the pinned versions or the package's metadata have changed.
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
	  f"Python: expected 3.11 or newer, found {v.major}.{v.minor}. Call make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV): takes a few minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

figures: results ## compute what is missing of STUDY, then draw its figures into figures/STUDY

	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(MAKE) --no-print-directory --jobs=$(JOBS) COMPUTED=yes $(FIGURE_NAMES)

# Computed before the notebooks, which have no progress bar: all of the study, or what a figure needs.
results: $(READY)
	@$(BIN)/python -m forgetlib.experiment $(STUDY) $(PART)
fig1 fig4 fig5 fig6 tasks: PART := own
fig2: PART := control own
fig3: PART := cross
fig7: PART := sizes
fig8: PART := cross flipped
fig9: PART := models

$(FIGURE_NAMES): $(if $(COMPUTED),,results)
	@mkdir -p .work/$(STUDY)/notebooks
	@echo "$@: notebooks/$(call notebook_of,$@) -> figures/$(STUDY)/"
	@$(BIN)/python notebooks/draw.py $(STUDY) notebooks/$(call notebook_of,$@) \
	  .work/$(STUDY)/notebooks/$(call notebook_of,$@)

check-figures: $(READY) ## compute some of STUDY's stored runs again, drawn by SEED, and compare
	@$(BIN)/python -m forgetlib.experiment $(STUDY) --check $(RUNS) --seed $(SEED)

# Jupyter refuses root without a word of ours; in a container there is often no one else.
lab: $(READY) ## open JupyterLab on the notebooks
	@[ "$$(id -u)" != 0 ] || echo "lab: you are root, whom JupyterLab serves with --allow-root only:" \
	  "passed. Whoever can open the address below can do as root; another user is safer" >&2
	@$(BIN)/jupyter lab $$([ "$$(id -u)" != 0 ] || echo --allow-root) notebooks

# A file is one process's, and the longest begin first (tests/conftest.py): xdist would have begun
# with those of the most tests.
BY_FILE := --dist loadfile --no-loadscope-reorder
# Two processes of one thread each: faster than one of two, as the waiting of one is the other's time.
test: $(READY) ## run the tests, the notebooks' too (20 minutes on 2 cores)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -n $(JOBS) $(BY_FILE)

test-full: $(READY) ## and those of a real model that take minutes each (15 minutes more)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m "not architectures" -n $(JOBS) $(BY_FILE)

architectures: $(READY) ## compare forgetlib with transformers alone, 200 architectures (10 minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_architectures.py -m "" -n $(JOBS)

# What only `mutation` needs, beside the environment's own packages.
TOOLS := .work/tools
$(TOOLS)/ready: $(READY)
	@rm -rf $(TOOLS) && $(BIN)/python -m venv $(TOOLS)
	@cd $(TOOLS)/lib/python*/site-packages && echo $(CURDIR)/$(VENV)/lib/python*/site-packages > venv.pth
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check mutmut==3.8.1
	@touch $@

# In a copy of what is in git's index, since mutmut writes beside the code.
mutation: $(TOOLS)/ready ## change five modules in 2,600 ways, and say which no test notices (20 minutes)
	@rm -rf .work/mutation && mkdir .work/mutation
	@git checkout-index --all --prefix=.work/mutation/
	@cd .work/mutation && OMP_NUM_THREADS=1 ../tools/bin/mutmut run --max-children $(JOBS)
	@cd .work/mutation && ../tools/bin/mutmut results

coverage: $(READY) ## run every test, and say which lines none reaches
	@mkdir -p .work
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m "not architectures" -n $(JOBS) $(BY_FILE) \
	  --cov --cov-report term-missing:skip-covered

bench: $(READY) ## measure scoring and fine-tuning on this machine
	@$(BIN)/python tests/bench.py

agreement: $(READY) ## compare log-likelihoods with lm-eval's, every task of both suites (10 minutes)
	@$(BIN)/python tests/agreement.py

settings: $(READY) ## compare training settings on a seed that no study reports (an hour)
	@$(BIN)/python tests/search.py

lint: $(READY) ## check style (ruff) and types (mypy)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

notebooks: $(READY) ## execute the committed notebooks again, in place
	@cd notebooks && ../$(BIN)/jupyter nbconvert --to notebook --execute --inplace \
	  --ExecutePreprocessor.record_timing=False $(notdir $(NOTEBOOKS))

lock: ## write requirements.txt anew: the newest versions that pyproject.toml admits
	@rm -rf .work/lock && $(PYTHON) -m venv .work/lock
	@.work/lock/bin/python -m pip install --quiet torch==2.13.0
	@.work/lock/bin/python -m pip install --quiet '.[test]'
	@.work/lock/bin/python -m pip freeze --exclude forgetlib | sed 's/+cpu$$//' > requirements.txt

# Strict: pip-audit alone passes over what it could not look up, and finds no vulnerabilities in it.
audit: ## look the pinned versions up among known vulnerabilities
	@rm -rf .work/audit && $(PYTHON) -m venv .work/audit
	@.work/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	@.work/audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off \
	  --requirement requirements.txt || { echo "audit: expected every version in requirements.txt" \
	  "to be looked up and none to be vulnerable, found the above. Update what is vulnerable; what" \
	  "could not be looked up needs a network with the service that pip-audit asks" >&2; exit 1; }

clean: ## delete the work in progress of STUDY; packed results and figures stay
	@rm -rf .work/$(STUDY)

.DEFAULT:
	@echo "make: expected a target of those below, found '$@'" >&2; echo >&2
	@$(MAKE) --no-print-directory --file $(firstword $(MAKEFILE_LIST)) help >&2; exit 2
