"""Compute pipeline_contract.json with transformers' question-answering pipeline.

    python -m venv contract && . contract/bin/activate
    pip install torch==2.13.0 transformers==5.2.0
    python tests/support/make_pipeline_contract.py CHECKPOINT tests/support/pipeline_contract.json

CHECKPOINT is the folder of the MiniLM checkpoint that the package's bundle is made from. The pipeline runs it
in FP32. transformers 5.2.0 is the last release that has the pipeline.
"""

import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
import transformers

CONTEXTS = {
    "lighthouse": (
        "The lighthouse on Corran Point was built in 1874 by Margaret Oduya, who had studied engineering "
        "in Edinburgh. It stands 41.5 metres above the sea and its lamp can be seen from 23 nautical miles "
        "away. Until 1962 three keepers lived there with their families; since then it has been automatic."
    ),
    "berlin": "My name is Wolfgang and I live in Berlin.",
    "one_word": "Berlin",
    "bakery": (
        "Ines opened her bakery in March 2009 with a loan of €12,500.75 (about $16,000 at the time). On "
        "the first day she sold 212 loaves, 48 rye rolls and one cake — to her own mother. By 2015 the "
        "shop employed seventeen people, and in 2018 it won the regional prize for the best sourdough. Its "
        "secret, she says, is patience: the dough rests for 36 hours at 4°C. 'Nobody wants to wait,' Ines "
        "told the Harbour Gazette, 'but bread does not care what you want.'"
    ),
    "layout": (
        "Meeting notes\n\n  Date:   12 May 2021\n  Place:  room 3.14,  second floor\n\n\nPresent:\tAda, "
        "Grace,\tKatherine\r\n\r\n1. The pump   was replaced.\n2. The valve (type B-17/x) leaks;   Grace "
        "orders a new one.\n3. Next meeting: 9 June,   10:30 a.m.\n"
    ),
    "combining": (
        "Re\u0301ne\u0301e Lefe\u0300vre taught in Besanc\u0327on from 1921 to 1938. Her pupil Zo\u00eb "
        "A\u030angstro\u0308m later moved to Malmo\u0308, where she founded the Cafe\u0301 Ny\u0301 "
        "together with Nguye\u0302\u0303n Va\u0306n Hu\u031bng. The cafe\u0301's speciality was "
        "cre\u0300me bru\u0302le\u0301e with cardamom."
    ),
    "emoji": (
        "🎉🎉 The robot 🤖 club meets on Thursdays 🗓️ in the library 📚. Its captain 👩🏽‍🚀 Tomoko built "
        "the first robot, called Pixel, from an old toaster 🍞🔥 and two bicycle wheels 🚲. The flag "
        "🏴󠁧󠁢󠁳󠁣󠁴󠁿 on top came from her grandfather 👴."
    ),
    "cjk": (
        "東京タワーは1958年に完成した。高さは333メートルである。 The tower was designed by Tachū Naitō "
        "(内藤多仲). 北京大学成立于1898年,位于北京市海淀区。서울은 대한민국의 수도이다. Seoul hosted the "
        "Olympic Games in 1988."
    ),
    "right_to_left": (
        "The poet Mahmoud Darwish (محمود درويش) was born in al-Birwa (البروة) in 1941. The Hebrew word "
        "שלום means peace, and the Persian word کتاب means book. In the manuscript of 1612, the name "
        "ירושלים appears 47 times."
    ),
    "long_words": (
        "The chemist wrote " + "methyl" * 24 + "isoleucine on the board. The longest station name is "
        "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch, which lies on Anglesey. "
        "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft was a subsidiary "
        "in Vienna before the war. See "
        "https://example.org/a/very-long/path?with=many&query=parameters#and-a-fragment for more."
    ),
    "punctuation": (
        "Well... \"wait\"—she said (twice!)—'it's 5:45 p.m.; isn't it?' The ratio was 3/4, i.e. 75%; the "
        "e-mail came from j.smith+test@mail.example.com at 192.168.0.1:8080. Dr. O'Neil-Watts' score: 9.81 "
        "m/s² ± 0.05 [sic]."
    ),
    "special_tokens": (
        "A BERT input begins with [CLS] and ends with [SEP]. In training, some words are replaced by "
        "[MASK], and short inputs are filled up with [PAD]. Unknown words become [UNK]."
    ),
    "repeated": " ".join(["The key is under the blue stone. Nobody knows who put it there."] * 9),
    "case": (
        "The Mill burned down in 1903. After the fire the mill was rebuilt in brick. Visitors call it THE "
        "MILL, and locals just say the Mill. The miller's name was Anton Mill."
    ),
    "expedition": (
        "The expedition left Tromsø on 3 June 1911 with two ships, the Aurora and the smaller Petrel. Its "
        "leader, Captain Ingrid Solheim, had crossed the Barents Sea four times before, but never with so "
        "many scientists on board. There were nineteen of them: geologists, botanists, a doctor named "
        "Pavel Hruska, and a photographer from Lisbon, Teresa Amaral, whose glass plates are the reason "
        "that we know so much about the journey.\n\nFor the first three weeks the weather was kind. The "
        "ships followed the edge of the ice to the east, and on 24 June the Petrel's crew sighted an "
        "island that was on no chart. They named it Hruska Island, because the doctor had seen it first "
        "while he was hanging out his laundry. Solheim went ashore with six others and left a cairn with a "
        "brass tube in it. The tube was found again in 1987 by a Norwegian coastguard vessel; the paper "
        "inside was still legible.\n\nIn July everything changed. A storm from the north drove the ice "
        "against the ships, and on the night of 11 July the Aurora's rudder broke. The carpenter, Mikkel "
        "Aas, built a new one from the mast of a lifeboat within 52 hours, working without sleep. "
        "Meanwhile the Petrel had been pushed onto a sandbank about seven miles to the south. Her crew "
        "threw 14 tonnes of coal overboard to float her again. Without that coal she could not go on, and "
        "Solheim decided to send her home under the command of the first mate, Jonas Lind.\n\nThe Aurora "
        "went on alone. By the middle of August she had reached 81 degrees and 12 minutes north, further "
        "than any Norwegian ship in that sea before her. The botanists collected 340 species of lichen, "
        "eleven of them unknown until then. Amaral took her most famous picture there: a polar bear asleep "
        "on the deck of the ship, with the ship's cat sitting on its back. For decades people believed "
        "that the picture was a forgery, until the negative was examined in Porto in 2004 and found to be "
        "genuine.\n\nThe way home was slow. Food ran short in September, and the cook, an elderly man "
        "called Osvald, is said to have served seal meat in twenty-six different ways. On 2 October 1911 "
        "the Aurora entered the harbour of Hammerfest with all hands alive. The king received Solheim in "
        "Kristiania eleven days later and gave her a gold watch. She sold it the following year to pay for "
        "the printing of the botanists' report."
    ),
}

QUESTIONS = {
    "lighthouse": [
        "Who built the lighthouse?",
        "How far away can the lamp be seen?",
        "When did the lighthouse become automatic?",
        "What colour is the lighthouse?",
    ],
    "berlin": ["Where do I live?", "What is my name?"],
    "one_word": ["Where do I live?"],
    "bakery": [
        "How large was the loan?",
        "How long does the dough rest?",
        "What did Ines say about bread?",
        "Who bought the cake?",
    ],
    "layout": ["When is the next meeting?", "Who orders a new valve?", "Where was the meeting?"],
    "combining": [
        "Where did Renée Lefèvre teach?",
        "Who founded the café?",
        "What was the cafe's speciality?",
    ],
    "emoji": ["What was the robot made of?", "Where does the 🤖 club meet?", "Who is the captain?"],
    "cjk": [
        "Who designed the tower?",
        "東京タワーの高さは?",
        "When did Seoul host the Olympic Games?",
        "北京大学在哪里?",
    ],
    "right_to_left": ["Who was born in al-Birwa?", "What does שלום mean?", "How often does the name appear?"],
    "long_words": ["What is the longest station name?", "What did the chemist write?", "What was in Vienna?"],
    "punctuation": ["What time is it?", "Where did the e-mail come from?", "What was the score?"],
    "special_tokens": ["What does a BERT input end with?", "What becomes of unknown words?"],
    "repeated": ["Where is the key?", "Who put it there?"],
    "case": ["What burned down in 1903?", "What do locals say?"],
    "expedition": [
        "Who led the expedition?",
        "Why was the coal thrown overboard?",
        "How many species of lichen were collected?",
        "When did the Aurora enter the harbour of Hammerfest?",
        "What was in the picture?",
        "Who was the owner of the ships?",
    ],
}

# Applied to every question of every context.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"top_k": 3, "handle_impossible_answer": True},
    {"top_k": 2, "align_to_words": False, "max_answer_len": 30},
    {"max_seq_len": 48, "doc_stride": 12},
]

# Applied to the first questions of the longest contexts.
MANY_WINDOWS: list[dict[str, Any]] = [
    {"max_seq_len": size, "doc_stride": stride, **rest}
    for (size, stride), rest in product(
        [(384, 128), (128, 0), (100, 50), (64, 20)],
        [{"top_k": 5}, {"handle_impossible_answer": True, "max_answer_len": 4, "top_k": 2}],
    )
] + [{"max_seq_len": 200}, {"max_seq_len": 512, "max_question_len": 2}, {"max_answer_len": 1, "top_k": 6}]


def inputs() -> Iterator[dict[str, Any]]:
    """Yield calls of the pipeline; a context is given by its name in CONTEXTS."""
    for context, questions in QUESTIONS.items():
        for question, options in product(questions, OPTIONS):
            if context == "one_word":  # it has one span; asked for more, the pipeline gives spans outside the context
                options = options | {"top_k": 1}
            yield {"question": question, "context": context, "options": options}
    for context in ("expedition", "repeated"):
        for question, options in product(QUESTIONS[context][:3], MANY_WINDOWS):
            yield {"question": question, "context": context, "options": options}
    for context in ("lighthouse", "expedition"):  # one context for a list of questions
        for options in [{}, {"top_k": 2}]:
            yield {"question": QUESTIONS[context], "context": context, "options": options}
    firsts = {context: questions[0] for context, questions in QUESTIONS.items()}
    for options in [{}, {"max_seq_len": 64, "doc_stride": 16}]:
        yield {"question": list(firsts.values()), "context": list(firsts), "options": options}
    for options in [{}, {"top_k": 2}]:  # lists of one
        yield {"question": [firsts["bakery"]], "context": ["bakery"], "options": options}


def main(checkpoint: str, output: str) -> None:
    """Run the pipeline over all inputs and write the cases."""
    torch.set_num_threads(1)
    answer = transformers.pipeline(  # type: ignore[call-overload]  # later releases do not know the task
        "question-answering", model=checkpoint, dtype=torch.float32, device="cpu"
    )
    cases = []
    for case in inputs():
        names = case["context"]
        context = [CONTEXTS[name] for name in names] if isinstance(names, list) else CONTEXTS[names]
        expected = answer(question=case["question"], context=context, **case["options"])
        cases.append({**case, "expected": expected})
    document = {"transformers": transformers.__version__, "contexts": CONTEXTS, "cases": cases}
    Path(output).write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{len(cases)} cases")


if __name__ == "__main__":
    main(*sys.argv[1:])
