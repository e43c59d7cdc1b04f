"""The chain under Prefect. Nothing outside this package imports Prefect.

server        the server of a store: joined, started, stopped when nobody needs it
session       what a run in this process shares with the flow that carries it
tasks         a stage and a shard as Prefect tasks
flows         end-to-end, one flow per stage, nightly-evals
publish       logs, progress and artifacts of a run
settle        every state final in the database, whoever was killed
deployments   work pools, queues, deployments, automations
up            server and workers kept for a store
"""
