"use strict";
// Builds the page from its data. Every text is written as text: nothing that a model said is markup.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const data = read("data");
  const pictures = read("pictures");
  const main = document.getElementById("main");
  const STATUSES = {
    fail: "failed", error: "error", pass: "passed", xfail: "expected failure", skip: "skipped",
    na: "not applicable", recorded: "recorded", missing: "not applicable",
  };
  const PARTS = { i: "image tokens", p: "text of the prompt", a: "answer" };
  const ORDER = ["fail", "error", "xfail", "pass", "recorded", "skip", "na"];
  const STEP = 100;
  const byId = new Map(data.rows.map((row, index) => [row.id, index]));
  const filter = { words: "", statuses: null, class: "", group: "", shown: STEP };
  let language = data.languages.find((one) => navigator.language.startsWith(one))
    || data.languages[0];
  let left = { scroll: 0, row: null };

  // --- small helpers ------------------------------------------------------------------------------

  const t = (english, values = {}) => Object.entries(values).reduce(
    (text, [name, value]) => text.replace(`{${name}}`, () => value),
    data.texts[language][english] ?? english,
  );
  // A sentence of a criterion, a unit or a figure's name; what a model said has no translation.
  const translated = (text, name = language) => {
    const known = data.sentences[name];
    return known && Object.hasOwn(known, text) ? known[text] : null;
  };
  const tell = (text) => translated(text) ?? text;
  const told = (tag, text, attributes = {}) =>
    el(tag, { lang: translated(text) === null ? "en" : language, ...attributes }, tell(text));
  const said = (pair) => (typeof pair === "string" ? pair : pair[language]);

  function build(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(name, value);
    }
    node.append(...children.flat().filter((child) => child !== null));
    return node;
  }
  const el = (tag, attributes = {}, ...children) =>
    build(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) =>
    build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  const number = (value) => {
    if (typeof value !== "number") return value === null ? "–" : String(value);
    if (Number.isInteger(value)) return String(value);
    const size = Math.abs(value);
    if (size < 1e-3 || size >= 1e6) return value.toExponential(2);
    // A cosine of 0.999968 is not shown as 1: two digits of its distance to 1.
    const distance = 1 - size;
    return distance >= 1e-9 && distance < 1e-3
      ? value.toFixed(1 + Math.ceil(-Math.log10(distance))) : String(+value.toPrecision(4));
  };
  const signed = (value) => (value > 0 ? "+" : "") + number(value);
  const withUnit = (value, unit) => (unit ? `${number(value)} ${tell(unit)}` : number(value));
  const nameOf = (row) => (row.case ? `${row.criterion}[${row.case}]` : row.criterion);
  const hashOf = (row) => `#${encodeURIComponent(row.id)}`;
  const linkTo = (row, text = nameOf(row)) => el("a", { href: hashOf(row) }, text);
  const badge = (status, text = t(STATUSES[status])) =>
    el("span", { class: `status ${status}` }, text);
  const counts = (found) => Object.entries(found).map(([status, count]) =>
    badge(status, `${count} ${t(STATUSES[status])}`));

  function table(heads, rows, attributes = {}) {
    const cell = (content, index) => el(
      index === 0 && attributes.class?.includes("groups") ? "th" : "td",
      index === 0 ? (attributes.class?.includes("groups") ? { scope: "row", role: "rowheader" }
        : { role: "cell" }) : { "data-label": heads[index], role: "cell" },
      content,
    );
    return el("table", { role: "table", ...attributes },
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" },
        heads.map((head) => el("th", { scope: "col", role: "columnheader" }, head)))),
      el("tbody", { role: "rowgroup" },
        rows.map((row) => el("tr", { role: "row" }, row.map(cell)))));
  }
  const facts = (pairs) => el("dl", {}, pairs.filter(([, value]) => value !== null)
    .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  const section = (title, ...children) => el("section", {}, el("h3", {}, title), ...children);

  // --- the overview -------------------------------------------------------------------------------

  function languageButtons() {
    if (data.languages.length < 2) return null;
    const names = { zh: "中文", en: "English" };
    return el("div", { class: "buttons", role: "group", "aria-label": t("Language") },
      data.languages.map((one) => el("button", {
        type: "button", lang: one, "aria-pressed": String(one === language), onclick: () => {
          language = one;
          show();
          main.querySelector(`.buttons [lang="${one}"]`).focus();
        },
      }, names[one] || one)));
  }

  function groupCell(group, index) {
    if (!group) return "";
    const worst = group.worst === null ? null : data.rows[group.worst];
    const label = `${data.classes[index].title}, ${said(group.name)}: ${
      Object.entries(group.counts).map(([s, n]) => `${n} ${t(STATUSES[s])}`).join(", ")}`;
    return el("div", {},
      el("button", { type: "button", "aria-label": label, onclick: () => choose(index, group.id) },
        Object.entries(group.counts).map(([s, n]) => badge(s, `${mark(s)}${n}`))),
      worst && el("a", { class: "worst", href: hashOf(worst), title: nameOf(worst),
        "aria-label": `${t("smallest margin")} ${signed(worst.margin)} ${
          tell(worst.unit)}: ${nameOf(worst)}` },
      `${signed(worst.margin)} ${tell(worst.unit)}`));
  }
  const mark = (status) => ({
    pass: "✓ ", fail: "✗ ", error: "⚡ ", xfail: "! ", na: "– ", skip: "» ", recorded: "✎ ",
  }[status]);

  function overviewTable() {
    const judged = data.classes.map((one, index) => [one, index])
      .filter(([one]) => one.groups.length);
    const groups = new Map(judged.flatMap(([one]) => one.groups.map((g) => [g.id, g.name])));
    const rows = judged.map(([one, index]) => [
      [el("div", {}, one.title), el("div", { class: "soft" }, said(one.conclusion))],
      ...[...groups.keys()].map((id) => groupCell(one.groups.find((g) => g.id === id), index)),
    ]);
    const heads = [t("model"), ...[...groups.values()].map(said)];
    const others = data.classes.filter((one) => !one.groups.length);
    return [
      el("p", { class: "soft" }, t("Each field has the number of results by status, and the "
        + "smallest margin to a threshold. Choose the numbers to see the results, or the margin to "
        + "see its case.")),
      el("div", { class: "scroll", tabindex: "0", role: "region",
        "aria-label": t("Models and groups of criteria") },
      table(heads, rows, { class: "groups stack" })),
      others.length ? el("details", {},
        el("summary", {}, `${t("not applicable in this run")}: ${others.length}`),
        el("ul", {}, others.map((one) => el("li", {}, `${one.title} (${one.suite_class}): `,
          said(one.conclusion))))) : null,
      el("p", { class: "soft" }, Object.keys(STATUSES).filter((s) => s !== "missing")
        .map((s) => [badge(s, `${mark(s)}${t(STATUSES[s])}`), " "]).flat()),
    ];
  }

  function choose(index, group) {
    Object.assign(filter, { class: String(index), group, words: "", statuses: null, shown: STEP });
    show();
    const title = document.getElementById("results");
    title.scrollIntoView();
    title.focus({ preventScroll: true });
  }

  const statusesShown = () => filter.statuses
    ?? new Set(ORDER.filter((status) => status !== "na"));

  function searchable(row) {
    if (row.searchable === undefined) {
      const matter = row.matter === null ? null : data.matters[row.matter];
      const texts = matter ? [
        ...matter.messages.map((one) => one.text), ...matter.answers.map((one) => one.served),
      ] : [];
      const verdicts = [row.reason, row.finding].flatMap((text) =>
        [text, ...data.languages.map((name) => translated(text, name))]);
      row.searchable = [row.id, data.classes[row.class].title, ...verdicts, ...texts]
        .join("\n").toLowerCase();
    }
    return row.searchable;
  }

  function matching() {
    const words = filter.words.toLowerCase().split(/\s+/).filter(Boolean);
    const statuses = statusesShown();
    return data.rows.filter((row) => statuses.has(row.status)
      && (filter.class === "" || row.class === Number(filter.class))
      && (filter.group === "" || row.group === filter.group)
      && words.every((word) => searchable(row).includes(word)))
      .map((row, index) => [row, index])
      .sort(([a, i], [b, j]) => rank(a) - rank(b) || i - j).map(([row]) => row);
  }
  // Failures and errors come first; the others stay in the order of the run.
  const rank = (row) => ({ fail: 0, error: 1 }[row.status] ?? 2);

  function refresh() {
    const found = matching();
    const place = document.getElementById("found");
    const count = t("{shown} of {total} results match",
      { shown: found.length, total: data.rows.length });
    const rest = found.length - filter.shown;
    document.getElementById("count").textContent = count;
    place.replaceChildren(
      table([t("criterion"), t("status"), t("model"), t("measured"), t("threshold"), t("margin")],
        found.slice(0, filter.shown).map((row) => [
          linkTo(row), badge(row.status), data.classes[row.class].title,
          ...(row.measured === null ? ["", "", ""] : [
            el("span", { class: "number" }, withUnit(row.measured, row.unit)),
            el("span", { class: "number" }, `${t(row.sense)} ${number(row.threshold)}`),
            el("span", { class: "number" }, signed(row.margin)),
          ]),
        ]), { class: "stack", "aria-labelledby": "results" }),
      ...(rest > 0 ? [el("p", { class: "more" }, el("button", {
        type: "button", onclick: () => { filter.shown += STEP; refresh(); },
      }, t("show {count} more", { count: Math.min(rest, STEP) })))] : []),
    );
  }

  function filterForm() {
    const change = (name, value) => { filter[name] = value; filter.shown = STEP; refresh(); };
    const statuses = ORDER.filter((status) => data.rows.some((row) => row.status === status));
    const boxes = statuses.map((status) => el("label", {}, el("input", {
      type: "checkbox", value: status, checked: statusesShown().has(status) ? "" : null,
      onchange: (event) => {
        const chosen = new Set(statusesShown());
        if (event.target.checked) chosen.add(status); else chosen.delete(status);
        change("statuses", chosen);
      },
    }), badge(status, `${t(STATUSES[status])} ${
      data.rows.filter((row) => row.status === status).length}`)));
    const groups = new Map(data.classes.flatMap((one) => one.groups.map((g) => [g.id, g.name])));
    const select = (name, all, options) => el("select", {
      name, onchange: (event) => change(name, event.target.value),
    }, [["", all], ...options].map(([value, text]) => el("option", {
      value, selected: filter[name] === value ? "" : null,
    }, text)));
    return el("form", { class: "filter", role: "search", onsubmit: (e) => e.preventDefault() },
      el("label", { class: "wide" }, t("search"), el("input", {
        type: "search", name: "words", value: filter.words,
        placeholder: t("criterion, case, prompt, answer, reason"),
        oninput: (event) => change("words", event.target.value),
      })),
      el("label", {}, t("model"), select("class", t("all models"), data.classes.map(
        (one, index) => [String(index), one.title]))),
      el("label", {}, t("group"), select("group", t("all groups"),
        [...groups].map(([id, name]) => [id, said(name)]))),
      el("fieldset", {}, el("legend", {}, t("status")), boxes),
      el("button", { type: "button", onclick: () => {
        Object.assign(filter, { words: "", statuses: null, class: "", group: "", shown: STEP });
        show();
        main.querySelector("[name=words]").focus();
      } }, t("reset the filter")));
  }

  const suspects = () => data.classes.filter((one) => one.suspects.length).map((one) =>
    el("div", {}, el("h3", {}, one.title),
      el("ol", {}, one.suspects.map((suspect) => el("li", {}, el("strong", {}, said(suspect.part)),
        facts([[t("because"), said(suspect.because)], [t("next step"), said(suspect.next_step)]]),
      )))));

  const published = () => data.classes.filter((one) => one.published.length).map((one) =>
    el("div", {}, el("h3", {}, one.title),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": one.title },
        table([t("figure"), t("published"), t("conditions of the published figure"),
          t("measured in this run"), t("conditions of the measurement"), t("conditions equal?")],
        one.published.map(([name, value, ...others]) => [said(name),
          el("span", { class: "number" }, said(value)), ...others.map(said)]),
        { class: "stack" }))));

  function overview() {
    const figures = published();
    const suspected = suspects();
    main.replaceChildren(
      el("div", { class: "top" }, el("h1", { tabindex: "-1" }, t("VLM conformance report")),
        languageButtons() ?? ""),
      el("details", {}, el("summary", {}, t("Environment")), facts(data.environment.map(
        ([name, value]) => [said(name), said(value)]))),
      el("section", {}, el("h2", {}, t("Models and groups of criteria")), ...overviewTable()
        .filter((part) => part !== null)),
      suspected.length ? el("section", {}, el("h2", {}, t("The results together point to:")),
        suspected) : "",
      figures.length ? el("section", {},
        el("h2", {}, t("Published figures beside the measured ones")), figures) : "",
      el("section", {}, el("h2", { id: "results", tabindex: "-1" }, t("Results")), filterForm(),
        el("p", { id: "count", class: "soft", role: "status" }), el("div", { id: "found" })),
    );
    refresh();
  }

  // --- one result ---------------------------------------------------------------------------------

  function verdict(row) {
    const first = row.told_at && data.rows.find(
      (other) => nameOf(other) === row.told_at && other.class === row.class);
    return section(t("Verdict"), facts([
      [t("status"), badge(row.status)],
      [t("measured"), row.measured === null ? null : withUnit(row.measured, row.unit)],
      [t("threshold"), row.measured === null ? null
        : `${t(row.sense)} ${withUnit(row.threshold, row.unit)}`],
      [t("margin"), row.measured === null ? null : signed(row.margin)],
      [t("finding"), row.finding ? told("span", row.finding) : null],
      [t("reason"), row.reason ? told("pre", row.reason, { tabindex: "0" }) : null],
      [t("the error is shown in full at"), first ? linkTo(first) : null],
      [t("duration of the test"), `${number(row.seconds)} s`],
      [t("taken over from"), row.taken_over
        ? `${row.taken_over.report} (${row.taken_over.date})` : null],
    ]));
  }

  function picture(index, heat) {
    const found = pictures[index];
    const isThere = found.uri.startsWith("data:image/");
    const map = heat ? heatMap(heat, found) : null;
    const box = el("div", { class: isThere ? "picture" : "picture blank" },
      isThere ? el("img", { src: found.uri, alt: found.file }) : null, map ? map.drawing : null);
    if (!isThere && map) box.style.aspectRatio = `${found.width} / ${found.height}`;
    const why = { "not found": "The file of this picture was not found when the page was made.",
      "left out": "The picture was left out, so that the page stays small." }[found.uri];
    const size = found.width ? `, ${found.width} × ${found.height} ${t("pixels")}` : "";
    return el("figure", {}, isThere || map ? box : null,
      el("figcaption", {}, found.file, size, why ? `. ${t(why)}` : ""),
      map ? map.words : null);
  }

  function request(matter) {
    if (!matter.messages.length && !matter.pictures.length) return null;
    const words = matter.messages.map((one) => el("div", {},
      el("p", { class: "soft" }, one.role + (one.images
        ? `, ${t("pictures: {count}", { count: one.images })}` : "")),
      el("div", { class: "text", tabindex: "0" }, one.text || t("(empty)"))));
    const shown = matter.pictures.map((index) => picture(index, null));
    return section(t("Request"), el("div", { class: "pair" }, shown.length
      ? el("div", {}, shown) : null, el("div", {}, words)));
  }

  function side(title, parts, kind, plain) {
    const tags = { "+": "ins", "-": "del" };
    const pieces = parts.length ? parts.filter(([op]) => op === "=" || op === kind)
      .map(([op, text]) => (op === "=" ? text : el(tags[op], { title: t("only here") }, text)))
      : [plain];
    const isEmpty = !pieces.some((piece) => piece !== "");
    return el("div", {}, el("p", { class: "soft" }, title),
      el("div", { class: "text", tabindex: "0", role: "group", "aria-label": title },
        isEmpty ? t("(empty)") : pieces));
  }

  function answer(found) {
    const run = t("served model");
    const title = found.other ? `${t(found.other)}${found.source ? ` (${tell(found.source)})` : ""}` : "";
    const served = side(run, found.parts, "+", found.served);
    const isSame = found.other && !found.parts.length && found.other !== "accepted answers";
    let other = null;
    if (found.other === "accepted answers") {
      other = el("div", {}, el("p", { class: "soft" }, t(found.other)), el("ul", {},
        found.accepted.map((text) => el("li", {}, text))));
    } else if (found.other && !isSame) other = side(title, found.parts, "-", "");
    return el("div", {}, el("p", {}, badge(found.status), " ", found.criterion,
      isSame ? el("span", { class: "soft" }, ` · ${title}: ${t("both texts are equal")}`) : null),
    el("div", { class: "pair" }, served, other));
  }

  function parting(found) {
    const side = (title, list) => el("div", {}, el("p", { class: "soft" }, title),
      table([t("token"), t("log-probability")], list.map((one) => [
        el("code", {}, JSON.stringify(one.text)),
        el("span", { class: "number" }, number(one.logprob))])));
    return section(t("Candidates where the answers part"),
      el("p", {}, t("token {position} of the answer", { position: found.position + 1 }),
        found.margin === null ? "" : ` · ${t("the reference prefers its token by {margin} nats",
          { margin: number(found.margin) })}`),
      el("div", { class: "pair" }, side(t("served model"), found.served),
        side(t("reference"), found.reference)));
  }

  const COSTS = [["prompt_tokens", "prompt tokens", ""], ["output_tokens", "output tokens", ""],
    ["seconds", "duration of the request", " s"]];

  function timing(matter) {
    const found = matter.answers.map((one) => one.cost).find((cost) => cost.seconds !== null);
    if (!found) return null;
    return section(t("Timing"), facts([
      ...COSTS.map(([key, name, unit]) => [t(name),
        found[key] === null ? null : number(found[key]) + unit]),
      [t("output rate"), found.output_tokens && found.seconds
        ? `${number(found.output_tokens / found.seconds)} tok/s` : null],
      [t("end of the answer"), found.finish_reason],
    ]));
  }

  const MEASURED = ["performance", "grid", "growth"];

  function evidence(row) {
    const rest = Object.entries(row.evidence).filter(([name]) => !MEASURED.includes(row.group)
      || !["series", "ttft_by_image_tokens", "grid"].includes(name));
    if (!rest.length) return null;
    const value = (found) => (found !== null && typeof found === "object"
      ? el("pre", { tabindex: "0", lang: "en" }, JSON.stringify(found, null, 1))
      : typeof found === "number" ? number(found)
        : typeof found === "string" && found.includes("\n")
          ? el("pre", { tabindex: "0", lang: "en" }, found)
        : row.group === "own" ? String(found) : tell(String(found)));
    return section(t("Evidence"), facts(rest.map(([name, found]) => [name, value(found)])));
  }

  function siblings(row) {
    const others = row.case === null ? [] : data.rows.filter((other) => other !== row
      && other.class === row.class && other.case === row.case && other.status !== "na");
    if (!others.length) return null;
    return section(t("Other criteria of this case"), el("ul", {}, others.map((other) =>
      el("li", {}, badge(other.status), " ", linkTo(other, other.criterion),
        other.margin === null ? "" : el("span", { class: "soft" },
          ` ${t("margin")} ${signed(other.margin)} ${tell(other.unit)}`)))));
  }

  function along(row) {
    if (!row.along.length) return null;
    const target = (name) => data.rows.find((other) => other.class === row.class
      && other.case === name && other.matter !== null);
    return section(t("Error by case, largest first"), el("div", { class: "scroll", tabindex: "0",
      role: "region", "aria-label": t("Error by case, largest first") },
    table([t("case"), t("error in bf16 roundings (R)")], row.along.map(([name, ratio]) => [
      target(name) ? linkTo(target(name), name) : name,
      el("span", { class: "number" }, number(ratio))]))));
  }

  // --- charts and maps ----------------------------------------------------------------------------

  const INK = "#7d8590"; // readable on white and on black, so that it need not change with the theme
  const COLOURS = { i: "#d9730d", p: "#8250df", a: "#1f7fd6", r: "#7d8590" };
  let charts = [];

  // Draws into a node once the node is on the page, because the width is not known before.
  function chart(title, axes, xs, series) {
    const place = el("div", { class: "chart", role: "img", "aria-label": title });
    const rows = xs.map((x, index) => [number(x), ...series.map((one) =>
      (one.values[index] === null ? "" : number(one.values[index])))]);
    const values = el("details", { ontoggle: (event) => {
      if (event.target.open && event.target.children.length === 1) {
        event.target.append(el("div", { class: "scroll", tabindex: "0", role: "region",
          "aria-label": title }, table([axes[0], ...series.map((one) => one.label)], rows)));
      }
    } }, el("summary", {}, t("values as a table")));
    const axis = (label, size) => ({ label, stroke: INK, size, labelSize: 20, font: "12px sans-serif",
      labelFont: "12px sans-serif", grid: { stroke: INK, width: 0.3 },
      ticks: { stroke: INK, width: 0.5 },
      values: (_, splits) => splits.map((value) => (value === null ? "" : number(value))) });
    charts.push(() => {
      const drawn = new uPlot({
        width: place.clientWidth, height: 260, legend: { live: true },
        cursor: { drag: { x: false, y: false } }, scales: { x: { time: false } },
        axes: [axis(axes[0], 34), axis(axes[1], 58)],
        series: [{ label: axes[0], value: (_, value) => (value === null ? "–" : number(value)) },
          ...series.map((one) => ({
            label: one.label, stroke: one.colour, width: one.isLine ? 1 : 0, spanGaps: one.isLine,
            paths: one.isLine ? undefined : () => null,
            points: { show: !one.isLine, size: 5, fill: one.colour },
            value: (_, value) => (value === null ? "–" : number(value)) }))],
      }, [xs, ...series.map((one) => one.values)], place);
      return () => drawn.setSize({ width: place.clientWidth, height: 260 });
    });
    return el("figure", {}, el("figcaption", {}, title), place, values);
  }

  function seriesChart(found) {
    const of = (part) => ({ label: t(PARTS[part]), colour: COLOURS[part], isLine: false,
      values: found.error.map((value, index) => (found.part[index] === part ? value : null)) });
    const parts = ["i", "p", "a"].filter((part) => found.part.includes(part));
    const rounding = found.rounding.length ? [{ label: t("bf16 rounding of the reference"),
      colour: COLOURS.r, isLine: true, values: found.rounding }] : [];
    const unit = found.unit === "rms" ? t("error, root mean square") : t("difference, nats");
    const lost = found.error.filter((value) => value === null).length;
    const name = found.name === found.criterion ? found.name
      : `${t(found.name)} · ${found.criterion}`;
    return [chart(name, [t("position"), unit], found.position, [...parts.map(of), ...rounding]),
      lost ? el("p", {}, t("{count} positions are not finite and are not drawn", { count: lost }))
        : null];
  }

  function measuredCharts(row) {
    if (!MEASURED.includes(row.group)) return []; // a user's own evidence may be anything
    const one = (values, label) => [{ label, colour: COLOURS.a, isLine: false, values }];
    const finite = (value) => (typeof value === "number" ? value : null);
    const found = (row.evidence.series || []).map((s) => chart(tell(s.name),
      [t("request"), `${tell(s.name)}, ${s.unit}`], s.values.map((_, index) => index + 1),
      one(s.values.map(finite), tell(s.name))));
    if (row.evidence.grid) {
      const { levels, ...quantities } = row.evidence.grid;
      const label = { ttft_s: "TTFT, s", request_throughput: t("requests per second") };
      found.push(...Object.entries(label).map(([name, unit]) => chart(unit,
        [t("requests at once"), unit], levels, one(quantities[name].map(finite), unit))));
    }
    const sizes = [...(row.evidence.ttft_by_image_tokens || [])]
      .sort((a, b) => a.image_tokens - b.image_tokens);
    if (sizes.length) {
      found.push(chart(t("TTFT by image tokens"), [t("image tokens"), "TTFT, s"],
        sizes.map((size) => size.image_tokens), one(sizes.map((size) => finite(size.ttft_s)),
          "TTFT, s")));
    }
    return found;
  }

  // From little to much, told apart by colour-blind readers as well.
  const HEAT = ["#fde725", "#7ad151", "#22a884", "#2a788e", "#414487", "#440154"];
  const BOUNDS = [0.5, 1, 1.5, 2, 4];
  const heatOf = (value) => HEAT[BOUNDS.filter((bound) => value >= bound).length];

  function heatMap(heat, found) {
    const readout = el("output", { class: "hint" },
      t("Point at a patch, or choose it with the arrow keys."));
    const words = (cell) => `${t("patch {row}, {column}", { row: cell[0] + 1, column: cell[1] + 1 })}: ${
      number(cell[2])}`;
    let chosen = -1;
    const choose = (index) => {
      cells[chosen]?.classList.remove("chosen");
      chosen = (index + cells.length) % cells.length;
      cells[chosen].classList.add("chosen");
      readout.textContent = words(heat.cells[chosen]);
    };
    const cells = heat.cells.map((cell, index) => svg("rect", {
      class: "patch", x: cell[1], y: cell[0], width: 1, height: 1, fill: heatOf(cell[2]),
      "fill-opacity": 0.72, onpointerenter: () => choose(index),
    }, svg("title", {}, words(cell))));
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    const drawing = svg("svg", {
      viewBox: `0 0 ${heat.columns} ${heat.rows}`, preserveAspectRatio: "none", tabindex: "0",
      role: "img", "aria-label": `${t("Numerics over the picture")}: ${found.file}`,
      onkeydown: (event) => {
        if (steps[event.key]) { event.preventDefault(); choose(chosen + steps[event.key]); }
      },
    }, cells);
    const toggle = el("label", {}, el("input", { type: "checkbox", checked: "",
      onchange: (event) => { drawing.style.visibility = event.target.checked ? "" : "hidden"; },
    }), ` ${t("show the map")}`);
    const labels = HEAT.map((_, index) => (index === 0 ? `< ${BOUNDS[0]}`
      : index === HEAT.length - 1 ? `≥ ${BOUNDS[index - 1]}`
        : `${BOUNDS[index - 1]} – ${BOUNDS[index]}`));
    const scale = el("ul", { class: "scale" }, HEAT.map((colour, index) => el("li", {},
      svg("svg", { class: "key", viewBox: "0 0 1 1", preserveAspectRatio: "none",
        "aria-hidden": "true" }, svg("rect", { width: 1, height: 1, fill: colour })),
      labels[index])));
    const some = heat.cells.length < heat.rows * heat.columns
      ? ` ${t("Patches without colour were not compared.")}` : "";
    return { drawing, words: el("div", {}, el("p", { class: "soft" },
      t("The colour is the error at a patch, in roundings of the reference in bf16.") + some),
    scale, toggle, el("p", {}, readout)) };
  }

  function numerics(matter) {
    if (!matter.series.length) return null;
    return section(t("Numerics along the sequence"), matter.series.flatMap(seriesChart));
  }

  function maps(matter) {
    if (!matter.heat.length) return null;
    return section(t("Numerics over the picture"), el("div", { class: "pair" },
      matter.heat.map((heat) => picture(matter.pictures[heat.picture], heat))));
  }

  // --- navigation ---------------------------------------------------------------------------------

  function result(row) {
    const around = matching();
    const place = around.indexOf(row);
    const matter = row.matter === null ? null : data.matters[row.matter];
    const step = (other, text, key) => (other ? el("a", { href: hashOf(other), rel: key }, text)
      : null);
    main.replaceChildren(
      el("div", { class: "top" },
        el("nav", { class: "buttons", "aria-label": t("Results") },
          el("a", { href: "#" }, `← ${t("Back to all results")}`),
          place < 0 ? null : step(around[place - 1], t("previous"), "prev"),
          place < 0 ? null : step(around[place + 1], t("next"), "next")),
        languageButtons() ?? ""),
      el("article", {}, ...[
        el("h1", { tabindex: "-1" }, nameOf(row)),
        el("p", { class: "soft" }, `${data.classes[row.class].title} · ${
          data.classes[row.class].suite_class}`),
        verdict(row),
        matter && request(matter),
        matter && matter.answers.length
          ? section(t("Answers"), matter.answers.map(answer)) : null,
        matter && matter.parting ? parting(matter.parting) : null,
        matter && maps(matter),
        matter && numerics(matter),
        ...measuredCharts(row),
        matter && timing(matter),
        along(row), evidence(row), siblings(row),
      ].filter(Boolean)),
    );
  }

  function missing(id) {
    main.replaceChildren(el("h1", { tabindex: "-1" }, t("No result has this address.")),
      el("p", {}, el("code", {}, id)), el("p", {}, el("a", { href: "#" },
        t("Back to all results"))));
  }

  function address() {
    try {
      return decodeURIComponent(location.hash.slice(1));
    } catch { // a half-copied address
      return location.hash.slice(1);
    }
  }

  let resizers = [];
  const name = document.title;

  function show() {
    const id = address();
    document.documentElement.lang = language;
    charts = [];
    if (id === "") overview();
    else if (byId.has(id)) result(data.rows[byId.get(id)]);
    else missing(id);
    document.title = id === "" ? name : `${id} · ${name}`;
    resizers = charts.map((draw) => draw());
  }

  window.addEventListener("hashchange", () => {
    show();
    const title = main.querySelector("h1");
    if (address() === "" && left.row !== null) {
      window.scrollTo(0, left.scroll);
      const link = [...main.querySelectorAll("#found a")].find((one) => one.hash === left.row);
      (link ?? title).focus({ preventScroll: Boolean(link) });
      left = { scroll: 0, row: null };
    } else {
      window.scrollTo(0, 0);
      title.focus({ preventScroll: true });
    }
  });
  main.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (link && address() === "") left = { scroll: window.scrollY, row: link.hash };
  });
  window.addEventListener("resize", () => resizers.forEach((resize) => resize()));
  show();
})();
