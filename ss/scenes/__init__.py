"""Scenes: who speaks when, how loud, in which room and through which channel, planned as rows and rendered exactly.

`plan.plan_row` is a function of (seed, epoch, index), `render.render` one of the row: files, loaders and ranks hear the same bytes.
"""
