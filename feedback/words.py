"""Word lists behind the named traits: habits of speech first, then subjects.

They are for English. Another language's replies show these traits as zero, which says nothing, and is learned from by
form alone (length, lists, questions …).
"""

from __future__ import annotations

YOU = "you your yours yourself you're you'll you've you'd"
ME = "i me my mine myself i'm i've i'll i'd we us our ours we're we've we'll"
THEY = "he him his she her hers they them their himself herself who"
HEDGES = (
    "maybe perhaps might may could possibly probably seems seem appears likely generally usually often sometimes "
    "somewhat roughly about approximately around tend tends typically arguably depends"
)
CERTAINTY = (
    "always never definitely certainly must absolutely clearly obviously undoubtedly every all completely totally sure"
)
CAUTION = (
    "careful carefully caution cautious safe safely safety risk risks risky warning avoid beware danger dangerous "
    "consult doctor professional ensure sure check consider aware harm harmful prevent protect precaution precautions"
)
LIMITS = "unsure unknown uncertain unclear unable cannot can't don't doesn't isn't not no without"
FORMAL = (
    "therefore furthermore moreover thus hence additionally consequently regarding concerning upon utilize utilizing "
    "demonstrate facilitate significant essential crucial various numerous individuals appropriate ensure provide "
    "enhance comprehensive overall respectively within"
)
WARMTH = (
    "glad happy great love lovely wonderful hope enjoy thank thanks welcome friend friends dear kind care support "
    "proud amazing awesome delight pleased excited nice good best beautiful fun fantastic warm sweet"
)
POLITENESS = "please sorry apologize apologies thank thanks kindly appreciate grateful welcome"
EXAMPLES = "example examples instance e.g such like including include includes imagine suppose say"
STEPS = "first second third then next after finally lastly step steps begin start once before afterwards"
REASONS = "because since therefore so thus why reason reasons cause causes due result results leads means"
CONTRAST = "but however although though while whereas instead rather yet despite unlike otherwise except"
PAST = (
    "was were had did said went came saw took made got told knew thought found gave felt left became began stood ran "
    "once ago suddenly"
)
FEELINGS = (
    "feel feels feeling feelings felt heart joy sad sadness fear afraid angry anger hope hopes worry worried lonely "
    "calm peace tears smile smiled laugh laughed emotion emotions emotional love hate pain grief comfort"
)
SENSES = (
    "light dark bright color colors red blue green golden white black sound sounds soft loud warm cold sweet smell "
    "taste touch sun moon sky sea wind rain water trees flowers night shining gentle quiet"
)
SCIENCE = (
    "study studies research researchers scientists science scientific data evidence theory analysis method system "
    "systems process energy cells species physics chemical technology computer model models algorithm function"
)
COMPUTERS = (
    "computer computers software code coding program programs programming data internet online website web app apps "
    "digital network networks server machine machines robot algorithm algorithms ai technology technologies device "
    "devices phone file files user users system systems"
)
NATURE = (
    "nature natural sea ocean river rivers lake mountain mountains forest forests tree trees plant plants flower "
    "flowers animal animals bird birds fish dog dogs cat cats earth sky sun moon stars wind rain snow weather garden "
    "leaves water"
)
HEALTH = (
    "health healthy body brain exercise diet sleep disease diseases symptoms pain medicine medical doctor doctors "
    "treatment patients stress mental blood skin weight muscle muscles"
)
FOOD = (
    "food foods eat eating cook cooking recipe meal meals bread rice meat fish vegetables fruit fruits sugar salt oil "
    "cheese milk egg eggs chicken sauce coffee tea drink dinner lunch breakfast taste delicious kitchen"
)
ARTS = (
    "art arts artist music song songs film movie movies book books novel story stories poem poetry painting theatre "
    "play dance culture cultural creative design author writer"
)
MONEY = (
    "money cost costs price prices pay paid buy budget business company companies market customers sales work job "
    "career financial income tax product products service services"
)
PEOPLE = (
    "people person family mother father parents children child kids friend friends community man woman men women team "
    "others everyone someone society students teacher"
)
