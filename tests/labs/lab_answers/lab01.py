"""Answers to lab 01, wrong and right."""

from . import Right, Wrong

SHARE = "def share_cut(rows, limit):\n"
DRAW = """
def draw_answers(teacher, prompts, path, *, limit, seed):
    settings = dict(max_new_tokens=limit, seed=seed, progress=False)
"""
WHY = "def why_drop(row, example):\n"
KEEP = "def keep_first(rows, threshold):\n    kept = []\n"
CLEAN = """
def decontaminated(train, test):
    def text(row):
        return " ".join(data.words(data.prompt_of(row)))
"""
FUNNEL = "def funnel(rows, rules):\n    kept, counts = list(rows), {}\n"

WRONG = [
    # ------------------------------------------------------------ Q1
    Wrong(
        "off by one",
        "q1_share_cut",
        SHARE + "    return sum(r['usage']['completion_tokens'] >= limit for r in rows)"
        " / len(rows)",
        "q1_share_cut_test",
        "need exactly `limit` tokens",
    ),
    Wrong(
        "cut answers count as finished",
        "q1_share_cut",
        SHARE + "    return sum(r['usage']['completion_tokens'] > limit for r in rows)"
        " / len(rows)",
        "q1_share_cut_test",
        "the pilot itself cut",
    ),
    Wrong(
        "finish_reason only",
        "q1_share_cut",
        SHARE + "    return sum(r['finish_reason'] == 'length' for r in rows)"
        " / len(rows)",
        "q1_share_cut_test",
        "no limit makes a difference",
    ),
    Wrong(
        "prompt tokens counted",
        "q1_share_cut",
        SHARE + "    return sum(sum(r['usage'].values()) > limit for r in rows)"
        " / len(rows)",
        "q1_share_cut_test",
        "adds the tokens of the prompt",
    ),
    Wrong(
        "words for tokens",
        "q1_share_cut",
        SHARE + "    return sum(r['finish_reason'] == 'length' or"
        " len(r['messages'][-1]['content'].split()) > limit for r in rows)"
        " / len(rows)",
        "q1_share_cut_test",
        "counts words",
    ),
    Wrong(
        "a number of rows",
        "q1_share_cut",
        SHARE + "    return sum(r['finish_reason'] == 'length' or"
        " r['usage']['completion_tokens'] > limit for r in rows)",
        "q1_share_cut_test",
        "a number of rows",
    ),
    # ------------------------------------------------------------ Q2
    Wrong(
        "the default limit",
        "q2_draw_answers",
        DRAW + "    del settings['max_new_tokens']\n"
        "    return generate.generate_answers(teacher, prompts, path, samples=4,"
        " sampling_temperature=0.8, **settings)",
        "q2_settings_test",
        "max_new_tokens is 64",
    ),
    Wrong(
        "greedy in a loop",
        "q2_draw_answers",
        DRAW + "    return [row for n in range(4) for row in generate.generate_answers("
        "teacher, prompts, path.with_name(f'{path.stem}{n and n or str()}.jsonl'),"
        " **settings)]",
        "q2_settings_test",
        "the answers are greedy",
    ),
    Wrong(
        "one seed for all draws",
        "q2_draw_answers",
        DRAW + "    places = [path, *(path.with_name(f'{n}.jsonl') for n in '123')]\n"
        "    return [row for place in places for row in generate.generate_answers("
        "teacher, prompts, place, sampling_temperature=0.8, **settings)]",
        "q2_settings_test",
        "Do all have one seed?",
    ),
    Wrong(
        "seed not passed on",
        "q2_draw_answers",
        DRAW + "    settings['seed'] = 0\n"
        "    return generate.generate_answers(teacher, prompts, path, samples=4,"
        " sampling_temperature=0.8, **settings)",
        "q2_settings_test",
        "another `seed` gives the same draws",
    ),
    Wrong(
        "top_p for the temperature",
        "q2_draw_answers",
        DRAW + "    return generate.generate_answers(teacher, prompts, path, samples=4,"
        " sampling_temperature=1, top_p=0.8, **settings)",
        "q2_settings_test",
        "all of the distribution",
    ),
    Wrong(
        "the temperature of the loss",
        "q2_draw_answers",
        DRAW + "    return generate.generate_answers(teacher, prompts, path, samples=4,"
        " temperature=0.8, **settings)",
        "q2_settings_test",
        "unexpected keyword argument 'temperature'",
    ),
    Wrong(
        "one draw",
        "q2_draw_answers",
        DRAW + "    return generate.generate_answers(teacher, prompts, path,"
        " sampling_temperature=0.8, **settings)",
        "q2_settings_test",
        "5 rows came back for 5 prompts",
    ),
    Wrong(
        "starts afresh",
        "q2_draw_answers",
        DRAW + "    path.unlink(missing_ok=True)\n"
        "    return generate.generate_answers(teacher, prompts, path, samples=4,"
        " sampling_temperature=0.8, **settings)",
        "q2_resume_test",
        "called again, it asked the teacher again",
    ),
    # ------------------------------------------------------------ Q3
    Wrong(
        "compares with the gold text",
        "q3_why_drop",
        WHY + "    if row.get('finish_reason') == 'length':\n"
        "        return 'cut off'\n"
        "    right = row['messages'][-1]['content'] == example.answer\n"
        "    return '' if right else 'wrong'",
        "q3_why_drop_test",
        "compared with the gold text",
    ),
    Wrong(
        "keeps cut answers",
        "q3_why_drop",
        WHY + "    right = world.verify(example, row['messages'][-1]['content'])\n"
        "    return '' if right else 'wrong'",
        "q3_why_drop_test",
        "cut at the limit must be dropped",
    ),
    Wrong(
        "asks the prompt",
        "q3_why_drop",
        WHY + "    if row.get('finish_reason') == 'length':\n"
        "        return 'cut off'\n"
        "    right = world.verify(example, row['messages'][1]['content'])\n"
        "    return '' if right else 'wrong'",
        "q3_why_drop_test",
        "Which message of a row is the answer",
    ),
    Wrong(
        "returns a boolean",
        "q3_why_drop",
        WHY + "    return world.verify(example, row['messages'][-1]['content'])",
        "q3_why_drop_test",
        "a rule returns a string",
    ),
    Wrong(
        "needs the key",
        "q3_why_drop",
        WHY + "    if row.get('finish_reason') != 'stop':\n"
        "        return 'cut off'\n"
        "    right = world.verify(example, row['messages'][-1]['content'])\n"
        "    return '' if right else 'wrong'",
        "q3_why_drop_test",
        "without a finish_reason",
    ),
    Wrong(
        "writes into the row",
        "q3_why_drop",
        WHY
        + "    row['right'] = world.verify(example, row['messages'][-1]['content'])\n"
        "    if row.get('finish_reason') == 'length':\n"
        "        return 'cut off'\n"
        "    return '' if row['right'] else 'wrong'",
        "q3_why_drop_test",
        "were changed",
    ),
    Wrong(
        "looks at form only",
        "q3_why_drop",
        WHY + "    return 'cut off' if row.get('finish_reason') == 'length' else ''",
        "q3_why_drop_test",
        "a wrong answer is not dropped",
    ),
    # ------------------------------------------------------------ Q4
    Wrong(
        "drops both copies",
        "q4_keep_first",
        "def keep_first(rows, threshold):\n"
        "    def like(a, b):\n"
        "        a, b = shingles(a), shingles(b)\n"
        "        return len(a & b) / len(a | b) >= threshold\n"
        "    return [a for a in rows if sum(like(a, b) for b in rows) == 1]",
        "q4_keep_first_test",
        "of rows that are the same none is left",
    ),
    Wrong(
        "keeps the last",
        "q4_keep_first",
        KEEP + "    for row in rows[::-1]:\n"
        "        ours = shingles(row)\n"
        "        sets = map(shingles, kept)\n"
        "        if all(len(ours & s) / len(ours | s) < threshold for s in sets):\n"
        "            kept.insert(0, row)\n"
        "    return kept",
        "q4_keep_first_test",
        "the last of several copies is kept",
    ),
    Wrong(
        "compares with dropped rows",
        "q4_keep_first",
        KEEP + "    for i, row in enumerate(rows):\n"
        "        ours = shingles(row)\n"
        "        sets = map(shingles, rows[:i])\n"
        "        if all(len(ours & s) / len(ours | s) < threshold for s in sets):\n"
        "            kept.append(row)\n"
        "    return kept",
        "q4_keep_first_test",
        "like one that was dropped itself",
    ),
    Wrong(
        "compares with the row before",
        "q4_keep_first",
        KEEP + "    for row in rows:\n"
        "        ours = shingles(row)\n"
        "        sets = map(shingles, kept[-1:])\n"
        "        if all(len(ours & s) / len(ours | s) < threshold for s in sets):\n"
        "            kept.append(row)\n"
        "    return kept",
        "q4_keep_first_test",
        "another row stands between",
    ),
    Wrong(
        "no copy is like another",
        "q4_keep_first",
        KEEP + "    for row in rows:\n"
        "        if row['id'] not in {r['id'] for r in kept}:\n"
        "            kept.append(row)\n"
        "    return kept",
        "q4_keep_first_test",
        "they differ in their ids only",
    ),
    Wrong(
        "containment",
        "q4_keep_first",
        KEEP + "    for row in rows:\n"
        "        ours = shingles(row)\n"
        "        sets = map(shingles, kept)\n"
        "        if all(len(ours & s) < threshold * min(len(ours), len(s))"
        " for s in sets):\n"
        "            kept.append(row)\n"
        "    return kept",
        "q4_keep_first_test",
        "size of the union of the two sets",
    ),
    Wrong(
        "more than the threshold",
        "q4_keep_first",
        KEEP + "    for row in rows:\n"
        "        ours = shingles(row)\n"
        "        sets = map(shingles, kept)\n"
        "        if not any(len(ours & s) / len(ours | s) > threshold for s in sets):\n"
        "            kept.append(row)\n"
        "    return kept",
        "q4_keep_first_test",
        "exactly `threshold` is enough",
    ),
    # ------------------------------------------------------------ Q5
    Wrong(
        "leaks by id",
        "q5_decontaminated",
        CLEAN + "    ids = {row['id'] for row in test}\n"
        "    return [row for row in train if row['id'] not in ids]",
        "q5_leaks_test",
        "an id proves nothing",
    ),
    Wrong(
        "exact strings",
        "q5_decontaminated",
        CLEAN + "    asked = {data.prompt_of(row) for row in test}\n"
        "    return [row for row in train if data.prompt_of(row) not in asked]",
        "q5_leaks_test",
        "case, punctuation or white space",
    ),
    Wrong(
        "equality of words",
        "q5_decontaminated",
        CLEAN + "    asked = {text(row) for row in test}\n"
        "    return [row for row in train if text(row) not in asked]",
        "q5_leaks_test",
        "a greeting before it",
    ),
    Wrong(
        "cleans the test",
        "q5_decontaminated",
        CLEAN + "    texts = [f' {text(row)} ' for row in train]\n"
        "    return [r for r in test if not any(f' {text(r)} ' in t for t in texts)]",
        "q5_leaks_test",
        "The test stays as it is",
    ),
    Wrong(
        "returns normalised rows",
        "q5_decontaminated",
        CLEAN + "    asked = [f' {text(row)} ' for row in test]\n"
        "    train = [{**r, 'text': f' {text(r)} '} for r in train]\n"
        "    return [r for r in train if not any(a in r['text'] for a in asked)]",
        "q5_leaks_test",
        "rows came back changed",
    ),
    Wrong(
        "parts of words",
        "q5_decontaminated",
        CLEAN + "    asked = [text(row) for row in test]\n"
        "    return [r for r in train if not any(a in text(r) for a in asked)]",
        "q5_false_alarms_test",
        "'13 lamps' is taken for '3 lamps'",
    ),
    Wrong(
        "numbers removed",
        "q5_decontaminated",
        CLEAN + "    def letters(row):\n"
        "        return ''.join(c for c in text(row) if not c.isdigit())\n"
        "    asked = [letters(row) for row in test]\n"
        "    return [r for r in train if not any(a in letters(r) for a in asked)]",
        "q5_false_alarms_test",
        "another number or name",
    ),
    Wrong(
        "one run of five words",
        "q5_decontaminated",
        CLEAN + "    rule = quality.decontaminate({'test': test}, n=4, shortest=4)\n"
        "    found = quality.reasons(rule, train)\n"
        "    return [r for r, why in zip(train, found) if not why]",
        "q5_false_alarms_test",
        "another number or name",
    ),
    Wrong(
        "the last message only",
        "q5_decontaminated",
        "def decontaminated(train, test):\n"
        "    def text(row):\n"
        "        return f\" {data.normalised(row['messages'][-2]['content'])} \"\n"
        "    asked = [text(row) for row in test]\n"
        "    asked += [f' {data.normalised(data.prompt_of(r))} ' for r in test]\n"
        "    def all_of(row):\n"
        "        return f' {data.normalised(data.prompt_of(row))} '\n"
        "    return [r for r in train if not any(a in all_of(r) for a in asked)]",
        "q5_false_alarms_test",
        "not its last message",
    ),
    Wrong(
        "a bag of words",
        "q5_decontaminated",
        CLEAN + "    asked = [set(text(row).split()) for row in test]\n"
        "    return [r for r in train if not any(a <= set(text(r).split())"
        " for a in asked)]",
        "q5_false_alarms_test",
        "in another order",
    ),
    Wrong(
        "the system message too",
        "q5_decontaminated",
        "def decontaminated(train, test):\n"
        "    held = {m['content'] for row in test for m in row['messages'][:-1]}\n"
        "    return [r for r in train if not held & {m['content']"
        " for m in r['messages']}]",
        "q5_false_alarms_test",
        "the system message",
    ),
    Wrong(
        "drops everything",
        "q5_decontaminated",
        "def decontaminated(train, test):\n    return []",
        "q5_false_alarms_test",
        "every row is dropped",
    ),
    # ------------------------------------------------------------ Q6
    Wrong(
        "every rule sees all rows",
        "q6_funnel",
        FUNNEL + "    for name, rule in rules.items():\n"
        "        found = quality.reasons(rule, rows)\n"
        "        out = {r['id'] for r, why in zip(rows, found) if why}\n"
        "        counts[name] = (len(out), len(out))\n"
        "        kept = [row for row in kept if row['id'] not in out]\n"
        "    return kept, counts",
        "q6_funnel_test",
        "the counts do not add up",
    ),
    Wrong(
        "booked on the last rule",
        "q6_funnel",
        FUNNEL + "    for name, rule in reversed(rules.items()):\n"
        "        found = quality.reasons(rule, kept)\n"
        "        alone = sum(map(bool, quality.reasons(rule, rows)))\n"
        "        counts[name] = (sum(map(bool, found)), alone)\n"
        "        kept = [row for row, why in zip(kept, found) if not why]\n"
        "    return kept, {name: counts[name] for name in rules}",
        "q6_funnel_test",
        "booked on the last rule",
    ),
    Wrong(
        "alone is not alone",
        "q6_funnel",
        FUNNEL + "    for name, rule in rules.items():\n"
        "        found = quality.reasons(rule, kept)\n"
        "        counts[name] = (sum(map(bool, found)),) * 2\n"
        "        kept = [row for row, why in zip(kept, found) if not why]\n"
        "    return kept, counts",
        "q6_funnel_test",
        "of *all* rows",
    ),
    Wrong(
        "writes the reason into rows",
        "q6_funnel",
        FUNNEL + "    for name, rule in rules.items():\n"
        "        found = quality.reasons(rule, kept)\n"
        "        alone = sum(map(bool, quality.reasons(rule, rows)))\n"
        "        counts[name] = (sum(map(bool, found)), alone)\n"
        "        for row, why in zip(kept, found):\n"
        "            row['dropped_by'] = name if why else ''\n"
        "        kept = [row for row in kept if not row['dropped_by']]\n"
        "    return kept, counts",
        "q6_funnel_test",
        "were changed",
    ),
    Wrong(
        "the kept rows only",
        "q6_funnel",
        "def funnel(rows, rules):\n    return quality.funnel(rows, rules).kept",
        "q6_funnel_test",
        "two things were asked for",
    ),
]

RIGHT = [
    Right(
        "counted in a loop",
        "q1_share_cut",
        SHARE + "    fits = 0\n"
        "    for row in rows:\n"
        "        if row['finish_reason'] != 'stop':\n"
        "            continue\n"
        "        if row['usage']['completion_tokens'] <= limit:\n"
        "            fits += 1\n"
        "    return 1 - fits / len(rows)",
    ),
    Right(
        "a table",
        "q1_share_cut",
        SHARE + "    table = pd.json_normalize(rows)\n"
        "    long = table['usage.completion_tokens'] > limit\n"
        "    return (long | (table['finish_reason'] == 'length')).mean()",
    ),
    Right(
        "another name for the teacher's settings",
        "q2_draw_answers",
        DRAW + "    settings |= {'samples': 4, 'sampling_temperature': 0.8}\n"
        "    return generate.generate_answers(teacher, prompts, str(path), **settings)",
    ),
    Right(
        "facts instead of the verifier's yes, with details",
        "q3_why_drop",
        WHY + "    if row.get('finish_reason', 'stop') == 'length':\n"
        "        return 'cut off at the limit'\n"
        "    reason = quality.verified([example])({**row, 'id': example.id})\n"
        "    return f'wrong: {reason}' if reason else ''",
    ),
    Right(
        "nested loops, and a flag",
        "q4_keep_first",
        KEEP + "    for row in rows:\n"
        "        new = True\n"
        "        for other in kept:\n"
        "            a, b = shingles(row), shingles(other)\n"
        "            both = sum(1 for s in a if s in b)\n"
        "            if both >= threshold * (len(a) + len(b) - both):\n"
        "                new = False\n"
        "        if new:\n"
        "            kept.append(row)\n"
        "    return kept",
    ),
    Right(
        "the course's rule",
        "q4_keep_first",
        "def keep_first(rows, threshold):\n"
        "    rule = quality.near_duplicates(threshold, recall=0.999)\n"
        "    return quality.funnel(rows, {'same': rule}).kept",
    ),
    Right(
        "runs of words as tuples",
        "q5_decontaminated",
        "def decontaminated(train, test):\n"
        "    asked = [data.words(data.prompt_of(row)) for row in test]\n"
        "    def leaks(row):\n"
        "        its = data.words(data.prompt_of(row))\n"
        "        return any(its[i:i + len(a)] == a for a in asked"
        " for i in range(len(its)))\n"
        "    return [row for row in train if not leaks(row)]",
    ),
    Right(
        "one pattern",
        "q5_decontaminated",
        "def decontaminated(train, test):\n"
        "    import re\n"
        "    def text(row):\n"
        "        return data.normalised(data.prompt_of(row))\n"
        "    if not test:\n"
        "        return list(train)\n"
        "    some = '|'.join(re.escape(text(row)) for row in test)\n"
        "    pattern = re.compile(rf'\\b(?:{some})\\b')\n"
        "    return [row for row in train if not pattern.search(text(row))]",
    ),
    Right(
        "the course's rule for leaks",
        "q5_decontaminated",
        "def decontaminated(train, test):\n"
        "    bare = [{**r, 'messages': r['messages'][:-1]} for r in train]\n"
        "    found = quality.matches(bare, {'test': test}, n=10**6, shortest=1)\n"
        "    out = set(found['place'])\n"
        "    return [row for i, row in enumerate(train) if i not in out]",
    ),
    Right(
        "the course's funnel",
        "q6_funnel",
        "def funnel(rows, rules):\n"
        "    def dropped(rules):\n"
        "        return quality.funnel(rows, rules).table['dropped'].tolist()\n"
        "    alone = [dropped({name: rule})[0] for name, rule in rules.items()]\n"
        "    pairs = zip(dropped(rules), alone, strict=True)\n"
        "    kept = quality.funnel(rows, rules).kept\n"
        "    return kept, dict(zip(rules, pairs, strict=True))",
    ),
    Right(
        "recursion",
        "q6_funnel",
        "def funnel(rows, rules, everything=None):\n"
        "    everything = rows if everything is None else everything\n"
        "    if not rules:\n"
        "        return rows, {}\n"
        "    (name, rule), *rest = rules.items()\n"
        "    found = quality.reasons(rule, rows)\n"
        "    left = [r for r, why in zip(rows, found) if not why]\n"
        "    alone = [why for why in quality.reasons(rule, everything) if why]\n"
        "    kept, counts = funnel(left, dict(rest), everything)\n"
        "    return kept, {name: [len(rows) - len(left), len(alone)]} | counts",
    ),
]
