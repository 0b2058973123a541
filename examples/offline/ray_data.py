"""Scores a Parquet folder of queries and documents with Ray Data and servers of rerankd.

    python3 ray_data.py http://rerankd:8080 pairs/ scored/

Each row has a "query" and a "document"; it gets a "score", NaN where one of them is missing
or the query is empty. Needs ray[data].
"""

import sys

import ray

from client import Scorer


class Score:
    """A worker: a connection to a server, which batches what all workers send."""

    def __init__(self, url):
        self.scorer = Scorer(url)

    def __call__(self, rows):
        rows["score"] = self.scorer.score(list(rows["query"]), list(rows["document"]))
        return rows


def main():
    url, source, target = sys.argv[1:]
    rows = ray.data.read_parquet(source)
    # Two requests at a time keep a server's engine at work; more only wait there.
    rows = rows.map_batches(Score, fn_constructor_args=(url,), batch_size=256, concurrency=2, num_cpus=0)
    rows.write_parquet(target)


if __name__ == "__main__":
    main()
