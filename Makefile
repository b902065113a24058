# Every target sets up what it needs: `make` alone lists them.

STUDY ?= embedded
PYTHON ?= python3
RUNS ?= 3# checkpoints that check-figures computes again
SEED ?= 0
JOBS ?= 2# notebooks drawn, or test files run, at the same time
VENV := .venv
BIN := $(VENV)/bin
READ := $(VENV)/ready-to-read# what reading and drawing needs: neither torch nor transformers
READY := $(VENV)/ready# all of it
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
# A target's name is its notebook's up to the first "_": fig2 draws notebooks/fig2_*.ipynb.
# Each kind of study has notebooks of its own (forgetlib resolve --notebooks).
OF_METHODS := $(sort $(wildcard notebooks/methods/*.ipynb))
OF_SCALE := $(sort $(wildcard notebooks/scale/*.ipynb))
OF_IMPLICIT := $(sort $(wildcard notebooks/implicit/*.ipynb))
OF_PAPER := $(sort $(wildcard notebooks/fig*.ipynb)) notebooks/tasks.ipynb notebooks/claims.ipynb
EVERY := $(OF_PAPER) $(OF_METHODS) $(OF_SCALE) $(OF_IMPLICIT)
# STUDY_NOTEBOOKS: the folder of a study's notebooks, and the names of those that it has nothing for.
FOLDER := $(firstword $(STUDY_NOTEBOOKS))
NOT_DRAWN := $(foreach n,$(filter-out $(FOLDER),$(STUDY_NOTEBOOKS)),$(FOLDER)/$(n).ipynb $(FOLDER)/$(n)_%.ipynb)
FIGURES := $(filter-out $(NOT_DRAWN),$(if $(FOLDER),$(foreach n,$(EVERY),$(if $(filter $(FOLDER)/,$(dir $(n))),$(n))),$(EVERY)))
FIGURE_NAMES := $(sort $(foreach n,$(FIGURES),$(firstword $(subst _, ,$(notdir $(basename $(n)))))))
DRAW = $(BIN)/python notebooks/draw.py "$$STUDY" .work/$(STUDY_NAME)/notebooks
notebook_of = $(firstword $(wildcard $(foreach f,$(FOLDER),$(f)/$(1)_*.ipynb $(f)/$(1).ipynb)))

# A study's name, or a file that defines one. Recipes have it from the environment, as a word of its
# own, and paths are made of its STUDY_NAME alone: a-z, 0-9 and -, as Python says once (forgetlib resolve).
export STUDY

SHELL := bash
AGAIN := $(MAKE) --no-print-directory --silent --file $(firstword $(MAKEFILE_LIST))
.DEFAULT_GOAL := help
.PHONY: help named figures results $(FIGURE_NAMES) page lab check-figures test test-full architectures coverage mutation bench gpu agreement intervals settings rates pilots lint notebooks lock audit clean

help: ## print the targets
	@echo "make TARGET [STUDY=tiny|quick|embedded|methods|recovery|scale|implicit|paper-suite-270m|paper|FILE.py]   (STUDY is $$STUDY)"; echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1 \2/p' $(firstword $(MAKEFILE_LIST)) \
	  | while read -r name text; do printf '  %-14s%s\n' "$$name" "$$text"; done
	@printf '  %s\n                %s\n' "$(FIGURE_NAMES)" "draw one figure of STUDY"

# An environment is stale when the pinned versions or the package's metadata have changed.
# Python compiles what it imports and keeps it: a tenth of what pip would compile.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
$(VENV)/made: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
	  f"Python: expected 3.11 or newer, found {v.major}.{v.minor}. Call make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

# All versions are known: pip is asked about dependencies once they are there, which takes seconds,
# for what another system, or another build of torch, may need beside them.
$(READ): $(VENV)/made
	@echo "setting up $(VENV) to read and draw: takes a minute"
	@sed '/^# Beside/,$$d' requirements.txt > $(VENV)/read.txt
	@$(PIP) --no-deps --requirement $(VENV)/read.txt
	@$(PIP) --constraint requirements.txt --editable .
	@touch $@

$(READY): $(VENV)/made
	@echo "setting up $(VENV): takes two minutes"
	@$(PIP) --no-deps --requirement requirements.txt
	@$(PIP) --requirement requirements.txt --editable .
	@touch $(READ) $@

# Before anything is done, and without an environment.
named:
	@LC_ALL=C; case "$$STUDY" in *.py) ;; ""|-*|*[!a-z0-9-]*) echo "STUDY: expected the name of a study, of a-z," \
	  "0-9 and -, or a file that defines one, found '$$STUDY'. Write STUDY=quick, or leave it out;" \
	  "\`make\` alone lists them" >&2; exit 2;; esac

ifndef STUDY_NAME
# Resolved once: all else goes by the name.
figures $(FIGURE_NAMES): named $(READ)
	@name=$$($(BIN)/python -m forgetlib resolve "$$STUDY") \
	  && notebooks=$$($(BIN)/python -m forgetlib resolve "$$STUDY" --notebooks) \
	  && $(AGAIN) STUDY_NAME=$$name STUDY_NOTEBOOKS="$$notebooks" $@
else
figures: results ## compute what is missing of STUDY, then draw its figures into figures/STUDY
	@echo "drawing into figures/$(STUDY_NAME)/"
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(DRAW) --jobs $(JOBS) $(FIGURES)
	@$(BIN)/python -m forgetlib readme "$$STUDY"

$(FIGURE_NAMES): results
	@echo "drawing into figures/$(STUDY_NAME)/"
	@$(DRAW) $(call notebook_of,$@)
endif

# Computed before the notebooks: all of the study, or what a figure needs. Only where something is
# missing does it need torch.
results: named $(READ)
	@$(BIN)/python -m forgetlib stored "$$STUDY" $(SECTIONS) || { \
	  $(AGAIN) $(READY) && $(BIN)/python -m forgetlib run "$$STUDY" $(SECTIONS); }
fig1 fig5 fig6 tasks: SECTIONS := own
fig2 fig2b fig4: SECTIONS := control own
fig3: SECTIONS := cross cross_control
fig7: SECTIONS := sizes
fig8: SECTIONS := cross cross_control flipped
fig9: SECTIONS := models
dose forms generalisation: SECTIONS := methods
collateral: SECTIONS := collateral
models regressions: SECTIONS := control own
conjugate tuning: SECTIONS := regression
bayes shift: SECTIONS := regression control
weights: SECTIONS := regression weights
pattern: SECTIONS := pattern

check-figures: named $(READY) ## compute some of STUDY's stored checkpoints again, drawn by SEED, and compare
	@$(BIN)/python -m forgetlib verify "$$STUDY" $(RUNS) --seed $(SEED)

page: $(READ) ## write one HTML page of every drawn study, own ones too: figures/page.html
	@$(BIN)/python -m forgetlib page

# On copies: Jupyter writes a notebook that is opened, and git would see it as changed. It refuses
# root without a word of ours; in a container there is often no one else.
lab: $(READY) ## open JupyterLab on copies of the notebooks
	@$(BIN)/python notebooks/lab.py notebooks lab
	@[ "$$(id -u)" != 0 ] || echo "lab: you are root, whom JupyterLab serves with --allow-root only:" \
	  "passed. Whoever can open the address below can do as root; another user is safer" >&2
	@$(BIN)/jupyter lab $$([ "$$(id -u)" != 0 ] || echo --allow-root) lab

# What belongs together is one process's, and the longest begins first (tests/conftest.py): xdist
# would have begun with what has the most tests.
SHARED := -n $(JOBS) --dist loadgroup --no-loadscope-reorder
# Two processes of one thread each: faster than one of two, as the waiting of one is the other's time.
test: $(READY) ## run the tests, the notebooks' too (15 minutes on 2 cores)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests $(SHARED)

test-full: $(READY) ## and those of a real model that take minutes each (15 minutes more)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m "not architectures" $(SHARED)

architectures: $(READY) ## compare forgetlib with transformers alone, 200 architectures (10 minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/models/test_architectures.py -m "" $(SHARED)

# What only `mutation` needs, beside the environment's own packages.
TOOLS := .work/tools
$(TOOLS)/ready: $(READY)
	@rm -rf $(TOOLS) && $(BIN)/python -m venv $(TOOLS)
	@cd $(TOOLS)/lib/python*/site-packages && echo $(CURDIR)/$(VENV)/lib/python*/site-packages > venv.pth
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check mutmut==3.8.1
	@touch $@

# In a copy of what is in git's index, since mutmut writes beside the code.
mutation: $(TOOLS)/ready ## change modules in some 2,600 ways, and say which no test notices (20 minutes)
	@rm -rf .work/mutation && mkdir .work/mutation
	@git checkout-index --all --prefix=.work/mutation/
	@cd .work/mutation && OMP_NUM_THREADS=1 ../tools/bin/mutmut run --max-children $(JOBS)
	@cd .work/mutation && ../tools/bin/mutmut results

coverage: $(READY) ## run every test, and say which lines none reaches
	@mkdir -p .work
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m "not architectures" $(SHARED) \
	  --cov --cov-report term-missing:skip-covered

bench: $(READY) ## measure scoring and fine-tuning on this machine
	@$(BIN)/python tests/bench.py

gpu: $(READY) ## verify and measure the path on a GPU (planned for eight minutes; ARGS="--small --device cpu" rehearses it)
	@$(BIN)/python tests/gpu.py $(ARGS)

agreement: $(READY) ## compare log-likelihoods with lm-eval's, every task of both suites (10 minutes)
	@$(BIN)/python tests/agreement.py

intervals: $(READY) ## measure by simulation how often intervals cover the truth (an hour)
	@OMP_NUM_THREADS=1 $(BIN)/python tests/intervals.py

settings: $(READY) ## choose training settings on a seed that no study reports (three hours)
	@$(BIN)/python tests/search.py

rates: $(READY) ## measure at which rate relearning brings a hidden skill back, on a seed that no study reports (40 minutes of a core)
	@OMP_NUM_THREADS=1 $(BIN)/python tests/relearning_rates.py

pilots: $(READY) ## try each way to forget in several settings, on a seed that no study reports (two hours)
	@$(BIN)/forgetlib run tests/pilots.py methods && $(BIN)/python tests/pilots.py

lint: $(READY) ## check style (ruff) and types (mypy)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --num-workers $(JOBS)

notebooks: $(READY) ## execute the committed notebooks again, in place
	@cd notebooks && ../$(BIN)/jupyter nbconvert --to notebook --execute --inplace \
	  --ExecutePreprocessor.record_timing=False --ExecutePreprocessor.store_widget_state=False \
	  $(notdir $(NOTEBOOKS)) {implicit,methods,scale}/*.ipynb && \
	  ../$(BIN)/python found.py $(notdir $(NOTEBOOKS)) {implicit,methods,scale}/*.ipynb

lock: ## write requirements.txt anew: the newest versions that pyproject.toml admits
	@rm -rf .work/lock && $(PYTHON) -m venv .work/lock
	@.work/lock/bin/python -m pip install --quiet .
	@.work/lock/bin/python -m pip freeze --exclude forgetlib > .work/lock/read.txt
	@.work/lock/bin/python -m pip install --quiet torch==2.13.0
	@.work/lock/bin/python -m pip install --quiet --constraint .work/lock/read.txt '.[test]'
	@.work/lock/bin/python -m pip freeze --exclude forgetlib | sed 's/+cpu$$//' > .work/lock/all.txt
	@{ echo "# To read and draw:"; cat .work/lock/read.txt; echo "# Beside that, to compute and to test:"; \
	  grep -vxFf .work/lock/read.txt .work/lock/all.txt; } > requirements.txt

# Strict: pip-audit alone passes over what it could not look up, and finds no vulnerabilities in it.
audit: ## look the pinned versions up among known vulnerabilities
	@rm -rf .work/audit && $(PYTHON) -m venv .work/audit
	@.work/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	@.work/audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off \
	  --requirement requirements.txt || { echo "audit: expected every version in requirements.txt" \
	  "to be looked up and none to be vulnerable, found the above. Update what is vulnerable; what" \
	  "could not be looked up needs a network with the service that pip-audit asks" >&2; exit 1; }

clean: named ## delete the work in progress of STUDY; packed results and figures stay
	@name=$$STUDY; case "$$name" in *.py) name=$$($(BIN)/python -m forgetlib resolve "$$STUDY") || exit 1;; esac; \
	  rm -rf ".work/$$name"

.DEFAULT:
	@echo "make: expected a target of those below, found '$@'" >&2; echo >&2
	@$(AGAIN) help >&2; exit 2
