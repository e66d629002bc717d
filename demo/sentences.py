"""Sentences to say: made from a small grammar, so that no two speakers need say the same."""

import numpy as np

_NAMES = "Alice,Mr Bennet,the captain,my sister,old Martha,the doctor,Thomas,the young prince,her uncle,the gardener,Elizabeth"
_NAMES += ",the blacksmith,a stranger,the widow,our neighbour,Peter,the judge,little Rose,the shepherd,the tall sailor"
_VERBS = "carried,found,admired,forgot,painted,sold,hid,brought,wanted,dropped,borrowed,counted,mended,described,watched"
_VERBS += ",followed,guarded,noticed,polished,returned,studied,threw,washed,remembered,bought,chose,questioned,enjoyed"
_THINGS = "the silver watch,a heavy basket,seven green bottles,the broken chair,an orange lantern,the letter,his father's hat"
_THINGS += ",a bag of flour,the garden gate,some fresh bread,a pair of shoes,the yellow curtain,an old map,the wooden boat"
_THINGS += ",a jug of cold milk,the church bell,two bright feathers,the kitchen knife,a box of jewels,the brown horse"
_PLACES = "by the river,in the valley,behind the mill,at the station,under the bridge,near the village,on the roof"
_PLACES += ",beside the fire,across the field,in the churchyard,at the edge of the wood,through the open window,along the shore"
_TIMES = "before sunrise,in the early spring,after supper,on Thursday,that very evening,during the storm,at half past five"
_TIMES += ",every morning,once upon a time,late last winter,when the rain began,while the others slept,for the first time"
_LINKS = "and,but,because,so,although,while,until,and then"


def draw_sentence(rng: np.random.Generator, words: int) -> str:
    """Clauses of a subject, a verb and an object, most with a place or a time: at least `words` words, at most 6 more."""
    sentence = _clause(rng)
    while (wanted := words - len(sentence.split())) > 0:
        if wanted < 4:
            sentence += f" {_one_of(_PLACES if rng.uniform() < 0.5 else _TIMES, rng)}"
        else:
            sentence += f", {_one_of(_LINKS, rng)} {_clause(rng)}"
    return sentence[0].upper() + sentence[1:] + "."


def _clause(rng: np.random.Generator) -> str:
    return " ".join(_one_of(words, rng) for words in (_NAMES, _VERBS, _THINGS))


def _one_of(words: str, rng: np.random.Generator) -> str:
    return str(rng.choice(words.split(",")))
