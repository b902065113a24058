"""Give tasks, their questions, and where both come from.

to see what there is    `tasks.suite("paper")`, `tasks.get("sst2")`
to read questions       `splits.load("sst2", "test", n=5, seed=0)`
to add a task           `tasks`: from a function that makes a question of a row, a JSON Lines
                        file (`jsonl`), or a name in the lm-evaluation-harness (`harness`)
to show it otherwise    `views`: the same questions in another form, of those in `forms`

base      what an example, a question, a task and a view are
prompts   from a row to a question; nulls: what of it is needed
sources   rows; assets: files that are downloaded, verified and cached
"""
