"""Metrics of extracted speech, one utterance at a time, and summaries that say what could not be computed and why.

A test computes those that `configs/groups/metrics.yaml` names; `COLUMNS` in `ss/metric/summary.py` says how each is shown.
"""

from ss.metric.absence import STOIDrop, Suppression
from ss.metric.base import ACC, CannotCompute, Improvement, Metric, SingleMetric, UtteranceScores
from ss.metric.calls import DuringSpeech, Muted, PauseLevel, Settling, Unsettled
from ss.metric.composite import CompositeMetric
from ss.metric.perceptual import PESQ, STOI
from ss.metric.ratios import SDR, SISDR, SNR
from ss.metric.summary import COLUMNS, Average, Summary, Utterance, applies, columns, evaluate, evaluate_all, summarize
