.PHONY: check test format
check:
	python3 bin/test
test:
	python3 bin/test -q
format:
	.venv/bin/python -m ruff format .
	.venv/bin/python -m ruff check --fix .
