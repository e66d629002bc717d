"""Mixtures of two speakers as a preset of scenes: the keys of `mixing/configs/settings.yaml` in words of `Scene` and `Sources`."""

from collections.abc import Mapping
from typing import Any

from ss.errors import UserError


def as_scenes(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of scenes that a config of two-speaker mixing stands for; other keys stay. Lengths are in seconds, None is off.

    snr_levels: dB, one is drawn for each mixture. absent_share, partly_absent_share, clean_share: parts of the mixtures in which
    the target is silent, is silent for a part of the time, or speaks alone; in the rest, both speak. audio_len: of mixture and
    target; None: whole targets. ref_max_len: the longest enrolment. vad_db: silence so far below the loudest part of a file is
    dropped inside as well, instead of `trim_db` at the ends alone. loudness: LUFS of the targets, and levels compared so.
    Raises UserError for shares or levels that cannot be.
    """
    rest = dict(config)
    absent, partly, clean = (rest.pop(key, None) or 0 for key in ("absent_share", "partly_absent_share", "clean_share"))
    if min(absent, partly, clean) < 0 or absent + partly + clean > 1 + 1e-9:
        found = f"absent_share {absent}, partly_absent_share {partly}, clean_share {clean}"
        raise UserError(f"shares: expected at least 0 each and at most 1 together, found {found}")
    scene = {
        "seconds": rest.pop("audio_len", None),
        "patterns": {
            "full": max(0.0, 1 - absent - partly - clean),
            **{f"silent_{where}": partly / 3 for where in ("start", "middle", "end")},
            "absent": absent,
            "alone": clean,
        },
        "sir_levels": rest.pop("snr_levels"),
        "loudness": rest.pop("loudness", None),
        "enrolment": {"seconds": rest.pop("ref_max_len", None)},
    }
    if (vad_db := rest.pop("vad_db", None)) is not None:
        rest |= {"trim_db": vad_db, "drop_pauses": True}
    return {**rest, "scene": scene}
