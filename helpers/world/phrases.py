"""How people in the helpdesk world talk: every sentence of every book.

"ours" is what training shows. "shifted" is said in the shifted split only; answers have
no shifted wording, since our shop speaks as it always does. "other" is what customers
and agents of the other shops say besides.
"""

PHRASES: dict[str, dict[str, tuple[str, ...]]] = {
    "hello": {
        "ours": (
            "Hello, this is {name}. ",
            "Hi, {name} here. ",
            "I am {name}. ",
            "",
            "",
        ),
        "shifted": ("Good evening, my name is {name}. ", "{name} speaking. ", ""),
        "other": ("Dear shop, I am {name}. ", "Hey, {name} here. ", "", ""),
    },
    "vague": {
        "ours": (
            "I need help.",
            "Something is wrong.",
            "Can you help me?",
            "I have a problem.",
        ),
        "shifted": ("I could use a hand.", "There is an issue."),
        "other": ("I need some help.", "I have a question about a problem."),
    },
    "complaint": {
        "ours": (
            "My {product} {problem}.",
            "The {product} {problem}.",
            "The {product} I bought {problem}.",
            "Why is it that my {product} {problem}?",
            "Help, the new {product} {problem}.",
        ),
        "shifted": (
            "Sadly our {product} {problem}.",
            "It is about a {product}: it {problem}.",
        ),
        "other": (
            "I have a {product} and it {problem}.",
            "The {product} here {problem}.",
            "My {product} {problem}, what now?",
        ),
    },
    "tried": {
        "ours": (
            " I did {step}.",
            " I tried to {step}.",
            " I already tried to {step}.",
        ),
        "shifted": (" To {step} was my first idea.",),
        "other": (" I did {step} before.",),
    },
    "no luck": {
        "ours": (
            "That did not help.",
            "I did that, no change.",
            "Done, but it is the same.",
            "No, still broken.",
            "It still {problem}.",
            "That was not it.",
        ),
        "shifted": ("Sorry, the trouble stays.", "Same as before, I fear."),
        "other": (
            "That changed nothing.",
            "No, it is the same.",
            "I did, but no luck.",
        ),
    },
    "solved": {
        "ours": (
            "That helped, thank you.",
            "It works now.",
            "Yes, that was it!",
            "Now it is fine.",
        ),
        "shifted": ("Wonderful, all good again.", "You did it, thanks."),
        "other": ("Thanks, it works.", "Great, that did it."),
    },
    "say ask": {
        "ours": (
            "Which product is it, and what is wrong?",
            "Gladly. Which product is it, and what does it do?",
            "Tell me which product it is and what happens.",
        ),
        "other": ("Sure, which product do you mean?", "What product is it?"),
    },
    "say step": {
        "ours": (
            "Please {step}.",
            "Could you {step}?",
            "Next, please {step}.",
            "Let us {step} and see.",
            "Please {step} and tell me if it helps.",
        ),
        "other": ("You can {step}.", "Try to {step}.", "Then {step}, please."),
    },
    "say outcome": {
        "ours": (
            "I am sorry. For the {product} {outcome}.",
            "Then {outcome}.",
            "Thank you for trying. For this {product} {outcome}.",
            "I see, so {outcome}.",
        ),
        "other": ("In that case {outcome}.", "OK, {outcome}."),
    },
    "say solved": {
        "ours": (
            "Great, I am glad it works.",
            "Good to hear that it works again.",
            "Glad it works. Enjoy your {product}!",
        ),
        "other": ("Nice that it works.", "Perfect, then it works again."),
    },
    "order": {
        "ours": (
            "{name} bought {items} on {day}.",
            "{name} ordered {items} on {day}.",
            "{name} paid for {items} on {day}.",
        ),
        "shifted": ("{name} chose {items} on {day}.",),
        "other": ("{name} got {items} on {day}.", "{name} took {items} on {day}."),
    },
    "by name": {
        "ours": ("Orders by name: {lines}.", "The order book by name: {lines}."),
        "shifted": ("Sorted by customer, we have {lines}.",),
        "other": ("Names first: {lines}.", "List by name: {lines}."),
    },
    "by product": {
        "ours": ("Orders by product: {lines}.", "The order book by product: {lines}."),
        "shifted": ("Sorted by article, we have {lines}.",),
        "other": ("Products first: {lines}.", "List by product: {lines}."),
    },
    "ask who": {
        "ours": (
            "Who bought the {product}?",
            "Which customer has the {product}?",
            "Who is the {product} for?",
        ),
        "shifted": ("Whose order holds the {product}?",),
        "other": ("Who took the {product}?", "Who got the {product}?"),
    },
    "say who": {
        "ours": (
            "I find: {product} {name} {day}.",
            "The book says: {product} {name} {day}.",
            "Found: {product} {name} {day}.",
        ),
        "other": ("Here: {product} {name} {day}.", "It reads: {product} {name} {day}."),
    },
    "ask when": {
        "ours": (
            "When did {name} order?",
            "On which day did {name} buy?",
            "What day was the order of {name}?",
        ),
        "shifted": ("Which weekday saw the order of {name}?",),
        "other": ("When did {name} come?", "On what day was {name} here?"),
    },
    "ask what": {
        "ours": (
            "What did {name} buy?",
            "What did {name} order?",
            "What is in the order of {name}?",
        ),
        "shifted": ("Name the things that {name} chose.",),
        "other": ("What did {name} get?", "What did {name} take?"),
    },
    "say what": {
        "ours": (
            "I find: {name} {product} {day}.",
            "The book says: {name} {product} {day}.",
            "Found: {name} {product} {day}.",
        ),
        "other": ("Here: {name} {product} {day}.", "It reads: {name} {product} {day}."),
    },
    "ask window": {
        "ours": (
            "How long can {name} return the order?",
            "How many days does {name} have to send it back?",
            "For how long may {name} send the order back?",
        ),
        "shifted": ("Until which day after buying may {name} give it back?",),
        "other": (
            "How many days does {name} have for a return?",
            "How long may {name} give it back?",
        ),
    },
    "say window": {
        "ours": (
            "I find: {name} {product}, so {window} days.",
            "The book says: {name} {product}, that makes {window} days.",
            "Found: {name} {product}, {window} days.",
        ),
        "other": ("Here: {name} {product}, {window} days.",),
    },
    "nli frame": {
        "ours": (
            "{premise} Does it follow that {hypothesis}?",
            "Given: {premise} Claim: {hypothesis}.",
            "{premise} Is it true that {hypothesis}?",
        ),
        "shifted": ("Suppose this: {premise} Would you say that {hypothesis}?",),
        "other": (
            "{premise} So {hypothesis}?",
            "Note: {premise} Statement: {hypothesis}.",
        ),
    },
    "bought ago": {
        "ours": (
            "{name} bought a {product} {ago} days ago.",
            "The {product} of {name} is {ago} days old.",
            "{ago} days ago {name} ordered a {product}.",
        ),
        "shifted": ("It has been {ago} days since {name} chose a {product}.",),
        "other": (
            "{name} got a {product} {ago} days ago.",
            "{ago} days ago {name} took a {product}.",
        ),
    },
    "may return": {
        "ours": (
            "{name} can still return it",
            "it may still come back",
            "{name} may send it back",
        ),
        "shifted": ("a return is still open to {name}",),
        "other": ("{name} may still give it back", "a return is possible"),
    },
    "unsaid": {
        "ours": (
            "{name} paid by card",
            "it is a gift",
            "{name} likes the colour",
            "{name} lives in a big town",
            "it was on sale",
        ),
        "shifted": ("{name} has a garden", "the box was blue"),
        "other": ("{name} paid in cash", "it is for a friend", "{name} has a cat"),
    },
    "claim who": {
        "ours": ("{name} bought the {thing}", "the order is from {name}"),
        "shifted": ("the {thing} belong to an order of {name}",),
        "other": ("{name} got the {thing}",),
    },
    "claim when": {
        "ours": ("it was on {day}", "the order is from {day}"),
        "shifted": ("all this took place on {day}",),
        "other": ("that was {day}",),
    },
    "say window label": {
        "ours": (
            "The limit for a {product} is {window} days. "
            "{ago} is {more} than {window}, so it is {verdict}: {label}.",
            "A {product} can come back for {window} days. "
            "{ago} is {more} than {window}, {verdict}, so {label}.",
        ),
        "other": (
            "It is {window} days for a {product}. "
            "{ago} is {more} than {window}, {verdict}, {label}.",
        ),
    },
    "say label": {
        "ours": (
            "The text is silent on that: {label}.",
            "That stays open, so {label}.",
            "Nobody can tell from this: {label}.",
        ),
        "other": ("That is open, {label}.", "So {label}."),
    },
    "say compare": {
        "ours": (
            "The text says {truth}, the claim says {claimed}: {label}.",
            "It was {truth} and the claim is {claimed}, so {label}.",
            "{truth} in the text, {claimed} in the claim: {label}.",
        ),
        "other": ("{truth} there, {claimed} here: {label}.",),
    },
    "ask price": {
        "ours": (
            "What will {items} cost with shipping?",
            "How much are {items} and shipping?",
            "I order {items}. What is the total with shipping?",
        ),
        "shifted": ("Delivered to my door, what would {items} come to?",),
        "other": (
            "What is the price of {items} with shipping?",
            "{items} and shipping, how much?",
        ),
    },
    "ask sum": {
        "ours": (
            "What will {items} and {more} cost?",
            "How much are {items} and {more} together?",
            "I take {items} and {more}. What is the price?",
        ),
        "shifted": ("Tell me what {items} plus {more} come to.",),
        "other": (
            "What is the price of {items} and {more}?",
            "{items} and {more}, how much?",
        ),
    },
    "ask voucher": {
        "ours": (
            "What will {items} cost with a voucher of {amount} euros?",
            "I have a voucher of {amount} euros. How much for {items}?",
        ),
        "shifted": ("With {amount} euros off, what do I pay for {items}?",),
        "other": ("What is the price of {items} less {amount} euros?",),
    },
    "ask change": {
        "ours": (
            "I pay {items} with {amount} euros. How much do I get back?",
            "How much is left of {amount} euros after I buy {items}?",
        ),
        "shifted": ("What remains of {amount} euros once I own {items}?",),
        "other": ("I have {amount} euros and take {items}. What is left?",),
    },
    "say total": {
        "ours": (
            "{work} Total: {total} euros.",
            "{work} That makes {total} euros.",
            "{work} You pay {total} euros.",
        ),
        "other": ("{work} So {total} euros.", "{work} It is {total} euros."),
    },
    "say left": {
        "ours": (
            "{work} You get back {total} euros.",
            "{work} {total} euros are left.",
        ),
        "other": ("{work} So {total} euros.",),
    },
    "ask summary": {
        "ours": ("Sum up this thread.", "Summarise the thread.", "What happened here?"),
        "shifted": ("Give me the gist.",),
        "other": ("Sum this up.", "Make it short."),
    },
    "thread opening": {
        "ours": (
            "{name}: my {product} {problem}.",
            "{name}: the {product} {problem}.",
            "{name} writes: my {product} {problem}.",
        ),
        "shifted": ("{name} reports a {product} that {problem}.",),
        "other": (
            "{name}: I have a {product} and it {problem}.",
            "{name} says: the {product} {problem}.",
        ),
    },
    "thread step": {
        "ours": (
            "Agent: please {step}.",
            "Agent: could you {step}?",
            "Agent: {step}, please.",
        ),
        "shifted": ("Agent: a first idea is to {step}.",),
        "other": ("Agent: try to {step}.", "Agent: you can {step}."),
    },
    "thread failed": {
        "ours": (
            "{name}: that did not help.",
            "{name}: no change.",
            "{name}: still the same.",
        ),
        "shifted": ("{name}: the trouble stays.",),
        "other": ("{name}: that changed nothing.", "{name}: no luck."),
    },
    "thread solved": {
        "ours": (
            "{name}: it works again.",
            "{name}: thanks, that helped.",
            "{name}: now it is fine.",
        ),
        "shifted": ("{name}: wonderful, all good.",),
        "other": ("{name}: it works.", "{name}: great, that did it."),
    },
    "thread end": {
        "ours": ("Agent: then {outcome}.", "Agent: sorry, {outcome}."),
        "shifted": ("Agent: in this case {outcome}.",),
        "other": ("Agent: OK, {outcome}.",),
    },
    "say summary solved": {
        "ours": (
            "The {product} of {name} {problem}. {doing} solved it.",
            "{name} has a {product} that {problem}. {doing} fixed it.",
        ),
        "other": ("{name}, {product}: it {problem}. {doing} helped.",),
    },
    "say summary failed": {
        "ours": (
            "The {product} of {name} {problem}. {doing} did not help, so {outcome}.",
            "{name} has a {product} that {problem}. "
            "{doing} changed nothing: {outcome}.",
        ),
        "other": ("{name}, {product}: it {problem}. {doing} was no use, {outcome}.",),
    },
}
