"""More than chat: people with a taste in summaries, against the base, a text's first sentences, and asking outright.

    python -m benchmarks.summaries            # no training: some minutes; stopped, it goes on where it was
    python -m benchmarks.summaries --updates  # and one update a person: two hours

Everybody asks for a summary of a passage of a manual (data/passages.jsonl), and acts on base replies as people do in
`benchmarks.personalize`, whose code this is; other passages judge. What a summary is worth depends on its passage, so
a taste sees both. Beside Mynah's ways there are the things to do without it: the passage's first two sentences, and
a request that says the taste in words, which the other ways are never told. A win is what benchmarks/judging.py says.

Half of the tastes (TUNE) were looked at while this was written, the others make the figures. Table on the terminal,
JSON in benchmarks/results/summaries.json.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from statistics import fmean
from typing import Any

from adapters.files import write_json
from adapters.job import UpdateConfig
from benchmarks.base_replies import Drafts, Draw, base_replies
from benchmarks.clicks import head_of
from benchmarks.judging import Interval, Judged, interval, wins_by_prompt
from benchmarks.measure import Prompt, write
from benchmarks.people import Person
from benchmarks.personalize import Bench, Settings, plain
from benchmarks.report import columns
from benchmarks.updating import prepare_pool
from benchmarks.work import RESULTS, Unit, commit, machine

FIRST_SENTENCES, ASKED_DRAFTS = 2, 4
SETTINGS = Settings(seeds=3, prompts=36, stride=1, drafts=16, opponents=8, max_tokens=80)
JUDGE_FROM = 60  # the passages before are there to click on


class Summary(str):
    """A summary that knows its passage, so that a taste can see both."""

    passage: str

    def __new__(cls, text: str, passage: str) -> Summary:
        made = super().__new__(cls, text)
        made.passage = passage
        return made


# ---- tastes ------------------------------------------------------------------------------------------------------


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@cache
def _content(passage: str) -> frozenset[str]:
    """What a text is about: its longer words."""
    return frozenset(word for word in _words(passage) if len(word) > 5)


@cache
def _facts(passage: str) -> frozenset[str]:
    """Names and numbers of a text: figures, words written in capitals, and capitals within a sentence."""
    return frozenset(re.findall(r"\d[\d.,-]*\d|\d|\b[A-Z]{2,}[A-Za-z0-9]*\b|(?<=[a-z,] )[A-Z][A-Za-z]+", passage))


def _covered(text: Summary) -> float:
    """Share of a passage's longer words that the summary has, to a third."""
    content = _content(text.passage)
    return min(len(content.intersection(_words(text))) / max(len(content), 1), 1 / 3) * 3


def _kept(text: Summary, enough: int = 4) -> float:
    """Names and numbers of the passage in the summary, at most `enough`, as a share of it."""
    return min(len(_facts(text.passage) & _facts(str(text))), enough) / enough


def _copied(text: Summary) -> float:
    """Share of the summary's runs of five words that are the passage's own."""
    words, source = _words(text), _words(text.passage)
    runs = {tuple(source[i : i + 5]) for i in range(len(source) - 4)}
    mine = [tuple(words[i : i + 5]) for i in range(len(words) - 4)]
    return sum(run in runs for run in mine) / max(len(mine), 1)


def _sentences(text: str) -> list[str]:
    return [each for each in re.split(r"(?<=[.!?])\s+", text.strip()) if each]


def _mean_word(text: str) -> float:
    words = _words(text)
    return sum(map(len, words)) / max(len(words), 1)


def _log_words(text: str) -> float:
    return math.log(len(_words(text)) + 4)


@dataclass(frozen=True)
class Wish:
    """A taste in summaries, and how somebody would ask for it."""

    worth: Callable[[Any], float]  # of a Summary
    words: str


TUNE = {
    "short": Wish(lambda t: -_log_words(t), "Keep it as short as you can."),
    "facts": Wish(_kept, "Keep all names and numbers."),
    "plain": Wish(lambda t: -_mean_word(t), "Use short, plain words."),
    "own_words": Wish(lambda t: -_copied(t), "Use your own words; do not copy sentences."),
}
REPORT = {
    "short_with_facts": Wish(
        lambda t: _kept(t, 3) - 0.5 * _log_words(t), "Keep it very short, but keep the names and numbers."
    ),
    "one_plain_sentence": Wish(
        lambda t: -0.5 * abs(len(_sentences(t)) - 1) - 0.4 * _mean_word(t), "Use one sentence of short, plain words."
    ),
    "all_of_it": Wish(lambda t: _covered(t) + 0.2 * _log_words(t), "Be thorough: leave out nothing of importance."),
    "no_jargon": Wish(
        lambda t: -len(re.findall(r"\b[A-Z]{2,}\w*|\w*[_()]\w*", t)) / max(len(_words(t)), 8) - 0.2 * _mean_word(t),
        "Avoid technical terms, capitals and names of functions.",
    ),
    "facts_first": Wish(
        lambda t: _kept(Summary(_sentences(t)[0] if _sentences(t) else "", t.passage), 2) + 0.5 * _kept(t),
        "Begin with the most important names and numbers.",
    ),
    "retold_in_short": Wish(
        lambda t: -_copied(t) - 0.3 * _log_words(t), "Retell it briefly in your own words; copy nothing."
    ),
    "points": Wish(
        lambda t: min(len(re.findall(r"(?m)^\s*([-*•]|\d+[.)])\s", t)), 3) / 3 + 0.4 * _covered(t),
        "Write it as a list of points.",
    ),
    "short_sentences": Wish(
        lambda t: -math.log(len(_words(t)) / max(len(_sentences(t)), 1) + 2) + 0.4 * _covered(t),
        "Use many short sentences.",
    ),
}


# ---- the run -----------------------------------------------------------------------------------------------------


class Summaries(Bench):
    """The same units as for chat, on passages."""

    name = "summaries"

    def __init__(self, wishes: Mapping[str, Wish], settings: Settings, config: UpdateConfig) -> None:
        self.wishes = wishes
        self.tastes = {name: wish.worth for name, wish in wishes.items()}
        super().__init__(replace(settings, people=tuple(wishes), trained=tuple(wishes)), config)

    @cached_property
    def label_drafts(self) -> list[Drafts]:
        """Base summaries to click on."""
        s = self.settings
        draw = Draw("passages", 0, s.label_prompts, s.label_drafts, s.max_tokens)
        return [_knowing(each) for each in base_replies(draw, self.base)]

    @cached_property
    def report_drafts(self) -> list[Drafts]:
        """Base summaries of the passages that judge: those to choose from, then the opponents."""
        s = self.settings
        draw = Draw("passages", JUDGE_FROM, JUDGE_FROM + s.prompts, s.drafts + s.opponents, s.max_tokens)
        return [_knowing(each) for each in base_replies(draw, self.base)]

    def judged(self, drafts: Sequence[Drafts], person: Person) -> list[list[Judged]]:
        return super().judged([_knowing(each) for each in drafts], person)

    def first_sentences(self, person: Person) -> list[list[Judged]]:
        """The beginning of each passage, as the person sees it."""
        shown = []
        for _, prompt in self.prompts:
            passage = _passage(prompt)
            text = Summary(" ".join(_sentences(passage)[:FIRST_SENTENCES]), passage)
            shown.append([Judged(text, person.utility(text), broken=False)])
        return shown

    def text(self, text: str, prompt: str) -> Summary:
        return Summary(text, _passage(prompt))

    def outright(self, name: str) -> Unit:
        """What the base makes of a request that says the taste in words."""
        prompts: list[Prompt] = [
            (each, text.replace("\n\n", f" {self.wishes[name].words}\n\n", 1)) for each, text in self.prompts
        ]
        written = write(self.base.policy, self.base.latents, prompts, ASKED_DRAFTS, self.sampling(5))
        rows = zip(written.drafts, self.prompts, strict=True)
        drafts = [replace(each, prompt=text) for each, (_, text) in rows]  # judged by the passage alone
        return {"replies": plain(self.judged(drafts, self.person(name, 0))), "kl": written.kl}

    def others(self, name: str, person: Person) -> dict[str, list[list[Judged]]]:
        """What there is without Mynah, as the person sees it."""
        outright = self._unit(f"outright-{name}", lambda: self.outright(name))
        return {
            "base": self.opponents(person),
            "first sentences": self.first_sentences(person),
            "asked outright": self.seen(outright["replies"], person),
        }

    def person_found(self, name: str, updates: bool) -> dict[str, dict[str, float]]:
        """Win rates of every way against every rival, seeds averaged."""
        s = self.settings
        person = self.person(name, 0)
        rivals = self.others(name, person)
        ways = {way: [replies] for way, replies in rivals.items()}
        for count in (s.few, s.many):
            ways[f"re-ranked after {count}"] = [
                self.judged(self.picked(name, seed, count), person) for seed in range(s.seeds)
            ]
        if updates:
            ways |= self.trained(name, person)
        return {
            way: {
                rival: fmean(fmean(wins_by_prompt(replies, others)) for replies in seeds)
                for rival, others in rivals.items()
            }
            for way, seeds in ways.items()
        }

    def picked(self, name: str, seed: int, count: int) -> list[Drafts]:
        """What re-ranking shows after so many labels."""
        _, labels = self.clicks(name, seed, count)
        return self.reranked(head_of(labels, self.population), 11 + seed).drafts

    def trained(self, name: str, person: Person) -> dict[str, list[list[list[Judged]]]]:
        """The adapter's replies after one update, all of them and those that re-ranking shows."""
        self._unit("pool", lambda: {"minutes": prepare_pool(self.work.folder / "jobs/pool", self.files, self.config)})
        self._unit(f"update-{name}", lambda: self.update(name))
        kept = self._unit(f"adapter-{name}", lambda: self.adapter(name))
        return {way: [self.seen(kept[way], person)] for way in ("adapter", "adapter, re-ranked")}

    def adapter(self, name: str) -> Unit:
        """What the adapter writes: texts and whether they are broken, and its divergence."""
        written = self.written_by(self.job(name) / "result", self.settings.drafts)
        head = head_of(self.clicks(name, 0, self.settings.many)[1], self.population)
        picks = self.reranked(head, 13, self.job(name) / "result").drafts
        person = self.person(name, 0)
        ways = {"adapter": written.drafts, "adapter, re-ranked": picks}
        return {way: plain(self.judged(drafts, person)) for way, drafts in ways.items()} | {"kl": written.kl}


def _passage(prompt: str) -> str:
    return prompt.partition("\n\n")[2]


def _knowing(drafts: Drafts) -> Drafts:
    """Replies that know what they are summaries of."""
    return replace(drafts, texts=[Summary(text, _passage(drafts.prompt)) for text in drafts.texts])


def over_people(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, Interval]]:
    """way → rival → mean win rate with its interval over people."""
    people = list(found.values())
    return {
        way: {rival: interval([each[way][rival] for each in people]) for rival in people[0][way]} for way in people[0]
    }


def report(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The tables."""
    overall = over_people(found)
    rivals = list(next(iter(overall.values())))
    lines = [columns(["wins of", *(f"over {rival}" for rival in rivals)], [
        [way, *(str(by[rival]) for rival in rivals)] for way, by in overall.items()
    ])]  # fmt: skip
    ways = [way for way in overall if way != "base"]
    rows = [[name, *(f"{by[way]['base']:.0%}" for way in ways)] for name, by in found.items()]
    return "\n\n".join([*lines, columns(["over the base, by person", *ways], rows)])


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", action="store_true", help="one update a person as well")
    parser.add_argument("--tune", action="store_true", help="the other tastes: what may be looked at")
    parser.add_argument("--quick", action="store_true", help="a rough form: few passages, one seed")
    given = parser.parse_args()
    settings = SETTINGS
    if given.quick:
        settings = replace(
            settings, seeds=1, prompts=6, label_prompts=30, label_drafts=7, drafts=6, opponents=2, max_tokens=48
        )
    bench = Summaries(TUNE if given.tune else REPORT, settings, UpdateConfig())
    found = {name: bench.person_found(name, given.updates) for name in bench.wishes}
    print(report(found))
    overall = {way: {rival: asdict(each) for rival, each in by.items()} for way, by in over_people(found).items()}
    about = {"commit": commit(), "machine": machine(), "settings": asdict(bench.settings)}
    form = "-quick" if given.quick else "-tune" if given.tune else ""
    path = RESULTS / (f"work/summaries{form}.json" if form else "summaries.json")
    write_json(path, about | {"summary": overall, "people": found})


if __name__ == "__main__":
    main()
