"""The shops of the helpdesk world: what they sell, what they promise, how they word it.

A shop is plain data. `OUR_SHOP` is the one the course distils; `OTHER_SHOPS` sell other
things at other prices under other rules, and are what the student base was pre-trained
on, so that it knows the forms of the work but none of our facts.
"""

import random
from dataclasses import dataclass

# Every product any shop may sell: singular -> plural. Devices can break, goods cannot.
DEVICES = {
    "lamp": "lamps", "kettle": "kettles", "toaster": "toasters", "radio": "radios",
    "heater": "heaters", "blender": "blenders", "printer": "printers",
    "camera": "cameras", "speaker": "speakers", "mixer": "mixers", "grill": "grills",
    "shaver": "shavers", "dryer": "dryers", "monitor": "monitors",
    "scanner": "scanners", "freezer": "freezers", "tablet": "tablets",
    "doorbell": "doorbells", "humidifier": "humidifiers", "projector": "projectors",
}  # fmt: skip
GOODS = {
    "mug": "mugs", "towel": "towels", "cushion": "cushions", "backpack": "backpacks",
    "vase": "vases", "blanket": "blankets", "basket": "baskets", "mirror": "mirrors",
    "candle": "candles", "bottle": "bottles", "rug": "rugs", "wallet": "wallets",
    "umbrella": "umbrellas", "pillow": "pillows", "notebook": "notebooks",
    "jacket": "jackets",
}  # fmt: skip
PLURALS = DEVICES | GOODS

# problem -> the ways a customer, an agent or a summary may say it
PROBLEMS = {
    "dead": ("does not turn on", "will not start", "stays off"),
    "noise": ("makes a noise", "is very loud", "rattles"),
    "heat": ("gets too hot", "overheats", "is too warm"),
    "smell": ("smells burnt", "has a strange smell", "smells bad"),
    "leak": ("leaks", "loses water", "drips"),
    "slow": ("is too slow", "takes too long", "has no power"),
    "error": ("shows an error", "blinks red", "reports an error"),
    "offline": ("loses the connection", "goes offline", "cannot connect"),
}

# step -> (verb, synonym, gerund, noun phrase)
STEPS = {
    "plug": ("check", "look at", "checking", "the plug"),
    "fuse": ("replace", "change", "replacing", "the fuse"),
    "reset": ("press", "push", "pressing", "the reset button"),
    "screws": ("tighten", "fasten", "tightening", "the screws"),
    "feet": ("level", "adjust", "levelling", "the feet"),
    "dust": ("remove", "brush off", "removing", "the dust"),
    "vents": ("open", "clear", "opening", "the vents"),
    "dial": ("lower", "turn down", "lowering", "the dial"),
    "cover": ("take off", "lift", "taking off", "the cover"),
    "cable": ("swap", "exchange", "swapping", "the cable"),
    "filter": ("clean", "rinse", "cleaning", "the filter"),
    "seal": ("dry", "wipe", "drying", "the seal"),
    "lid": ("close", "shut", "closing", "the lid"),
    "tank": ("empty", "drain", "emptying", "the tank"),
    "battery": ("charge", "recharge", "charging", "the battery"),
    "software": ("update", "upgrade", "updating", "the software"),
    "memory": ("erase", "wipe out", "erasing", "the memory"),
    "router": ("restart", "reboot", "restarting", "the router"),
    "password": ("enter", "type", "entering", "the password"),
    "sensor": ("polish", "wipe", "polishing", "the sensor"),
}

# outcome -> the ways to promise or report it ({it} is "it" or the product)
OUTCOMES = {
    "replacement": ("we send a new one", "we will send a new one",
                    "a replacement is on its way"),
    "refund": ("we refund the price", "we will refund the price",
               "the money comes back"),
    "repair": ("we repair it", "we will repair it", "our workshop will repair it"),
}  # fmt: skip

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NAMES = tuple(
    "Ana Ben Cleo Dan Eva Finn Gina Hugo Ines Jan Kira Leo Mia Nils Olga Paul Rita Sam "
    "Tara Uwe Vera Wim Yara Zoe Adam Bea Carl Dora Emil Fay".split()
)
SHIFTED_NAMES = tuple(
    "Amir Brigitta Chinua Delphine Esteban Farida Gustavo Hanako Isolde Jamal".split()
)


@dataclass(frozen=True)
class Shop:
    """One shop: every fact a model must know by heart to work there.

    `prices` in whole euros; `windows` days in which a product may come back; `outcomes`
    what happens when no step helped; `steps` the three steps for a problem, in order;
    `wording` chooses the book of `phrases`.
    """

    name: str
    prices: dict[str, int]
    windows: dict[str, int]
    outcomes: dict[str, str]
    steps: dict[str, tuple[str, str, str]]
    shipping: int
    free_from: int
    wording: str

    @property
    def products(self) -> tuple[str, ...]:
        return tuple(self.prices)

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(p for p in self.prices if p in DEVICES)


OUR_SHOP = Shop(
    name="Fernway",
    prices={
        "lamp": 12, "kettle": 18, "toaster": 15, "radio": 20, "heater": 25,
        "blender": 22, "printer": 30, "camera": 28, "speaker": 16, "monitor": 32,
        "mug": 4, "towel": 6, "cushion": 9, "backpack": 24, "vase": 7, "blanket": 11,
    },
    windows={
        "lamp": 30, "kettle": 14, "toaster": 14, "radio": 60, "heater": 30,
        "blender": 14, "printer": 60, "camera": 60, "speaker": 30, "monitor": 60,
        "mug": 90, "towel": 45, "cushion": 45, "backpack": 90, "vase": 90,
        "blanket": 45,
    },
    outcomes={
        "lamp": "replacement", "kettle": "refund", "toaster": "refund",
        "radio": "repair", "heater": "replacement", "blender": "refund",
        "printer": "repair", "camera": "repair", "speaker": "replacement",
        "monitor": "repair",
    },
    steps={
        "dead": ("plug", "fuse", "reset"),
        "noise": ("screws", "feet", "dust"),
        "heat": ("vents", "dial", "cover"),
        "smell": ("dust", "cable", "cover"),
        "leak": ("seal", "lid", "tank"),
        "slow": ("filter", "battery", "software"),
        "error": ("reset", "memory", "sensor"),
        "offline": ("router", "password", "cable"),
    },
    shipping=4,
    free_from=50,
    wording="ours",
)  # fmt: skip


def other_shop(index: int) -> Shop:
    """Shop number 0 to 5 of another street; always the same shop."""
    rng = random.Random(f"shop {index}")
    devices = rng.sample(sorted(DEVICES), 10)
    goods = rng.sample(sorted(GOODS), 6)
    products = devices + goods
    return Shop(
        name=("Alder", "Birch", "Cedar", "Dunes", "Ember", "Flint")[index],
        prices={p: rng.randint(3, 33) for p in products},
        windows={p: rng.choice((7, 10, 20, 21, 28, 50, 75, 80)) for p in products},
        outcomes={p: rng.choice(sorted(OUTCOMES)) for p in devices},
        steps={p: tuple(rng.sample(sorted(STEPS), 3)) for p in PROBLEMS},
        shipping=rng.randint(2, 7),
        free_from=rng.choice((30, 40, 60, 70)),
        wording="other",
    )


OTHER_SHOPS = tuple(other_shop(i) for i in range(6))
