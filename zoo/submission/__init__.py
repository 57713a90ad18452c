"""Submissions to the leaderboard: one archive a result, made from a run and verified by recomputation.

`zoo.submission.submit` makes the archive, `zoo.submission.verify` judges it; the first calls the second before anything leaves the machine.
"""
