"""Metrics of extracted speech, one utterance at a time, and summaries that say what could not be computed and why."""

from ss.metric.absence import STOIDrop, Suppression
from ss.metric.accuracy import ACC
from ss.metric.base import CannotCompute, Improvement, Metric, Row, SingleMetric
from ss.metric.composite import CompositeMetric
from ss.metric.perceptual import PESQ, STOI
from ss.metric.ratios import SDR, SISDR, SNR
from ss.metric.summary import COLUMNS, Average, Summary, applies, columns, evaluate, summarize
from ss.metric.workers import Utterance, evaluate_all

__all__ = [
    "ACC",
    "COLUMNS",
    "PESQ",
    "SDR",
    "SISDR",
    "SNR",
    "STOI",
    "Average",
    "CannotCompute",
    "CompositeMetric",
    "Improvement",
    "Metric",
    "Row",
    "STOIDrop",
    "SingleMetric",
    "Summary",
    "Suppression",
    "Utterance",
    "applies",
    "columns",
    "evaluate",
    "evaluate_all",
    "summarize",
]
