"""Scores a Parquet folder of queries and documents with Spark and servers of rerankd.

    spark-submit --py-files client.py spark.py http://rerankd:8080 pairs/ scored/

Each row has a "query" and a "document"; it gets a "score", NaN where one of them is missing
or the query is empty. Needs pyspark and pandas.
"""

import sys

from pyspark.sql import SparkSession
from pyspark.sql.types import DoubleType, StructType

from client import Scorer


def main():
    url, source, target = sys.argv[1:]
    spark = SparkSession.builder.appName("rerankd").config("spark.sql.execution.arrow.maxRecordsPerBatch", 256)
    rows = spark.getOrCreate().read.parquet(source)

    def score(batches):
        scorer = Scorer(url)
        for batch in batches:
            batch["score"] = scorer.score(batch["query"].tolist(), batch["document"].tolist())
            yield batch

    schema = StructType(rows.schema.fields).add("score", DoubleType())
    # As many partitions as requests at a time: two for each server keep its engine at work.
    rows.coalesce(2).mapInPandas(score, schema).write.parquet(target)


if __name__ == "__main__":
    main()
