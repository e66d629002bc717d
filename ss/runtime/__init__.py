"""Live extraction without torch: an exported model, any number of streams, samples in and samples out.

extractor = Extractor.load("exported")
stream = extractor.stream("enrolment.wav")
for block in microphone:
    loudspeaker.play(stream.process(block))
loudspeaker.play(stream.flush())
"""

from ss.runtime.extractor import Extractor
from ss.runtime.stream import BatchStream, Stream
from ss.runtime.voice import Conditions
