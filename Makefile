# `make test` runs every test on real servers; `make check` is the gate. Both install what they need.
.PHONY: help check clean-servers servers test up

help:
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 22

test: ## run all tests against PostgreSQL, Kafka and Redis started for this run
	@infra/test

check: ## run formatters, linters, documents, licences and house rules
	@infra/check

up: ## start MiniShop with everything embedded
	@cargo run --release

servers: ## start PostgreSQL, Kafka and Redis to work with, and print their addresses
	@infra/install servers
	@infra/servers start
	@infra/servers env

clean-servers: ## stop those servers and remove their data
	@infra/servers clean
