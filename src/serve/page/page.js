"use strict";
/* What a model says goes into the page as text nodes alone, never as markup. */

const words = {
  en: {
    text: "Text", chat: "Chat", prompt: "Text to go on with", go: "Go",
    stop: "Stop", copy: "Copy", clear: "Clear", settings: "Settings",
    max_tokens: "Most tokens", temperature: "Temperature", top_p: "Top p",
    top_k: "Top k (0: off)", seed: "Seed (empty: any)", stops: "Stop text",
    system: "System message", key: "API key", history: "History",
    forget: "Forget all", question: "Message (Ctrl+Enter sends)",
    base: "This base model was not trained to chat: it goes on with a talk.",
    masks: "Blanks are marked [MASK] (short) or [gMASK] (to the end).",
    onward: "The model goes on where the text ends.",
    queue: n => `${n} texts are before this one`,
    read: (a, b) => `read ${a} of ${b} tokens`,
    said: (a, b) => `${a} of at most ${b} tokens`,
    pace: s => `${s} s a token`, left: s => `at most ${s} left`,
    floor: p => `${p} % of what the machine can do`,
    done: (n, s) => `${n} tokens in ${s} s`, stopped: "stopped",
    copied: "copied", waiting: "waiting for the first token",
  },
  zh: {
    text: "文本", chat: "对话", prompt: "要续写的文本", go: "开始",
    stop: "停止", copy: "复制", clear: "清空", settings: "设置",
    max_tokens: "最多词元数", temperature: "温度", top_p: "Top p",
    top_k: "Top k（0 为关闭）", seed: "随机种子（空为任意）", stops: "停止文本",
    system: "系统消息", key: "API 密钥", history: "历史",
    forget: "全部删除", question: "消息（Ctrl+Enter 发送）",
    base: "这是基座模型，没有受过对话训练：它只是把对话续写下去。",
    masks: "用 [MASK]（短）或 [gMASK]（到结尾）标出要填的空。",
    onward: "模型从文本结尾处续写。",
    queue: n => `前面还有 ${n} 个文本`,
    read: (a, b) => `已读 ${a}/${b} 个词元`,
    said: (a, b) => `已生成 ${a} 个，最多 ${b} 个词元`,
    pace: s => `每个词元 ${s} 秒`, left: s => `最多还需 ${s}`,
    floor: p => `达到机器极限的 ${p}%`,
    done: (n, s) => `${n} 个词元，用时 ${s} 秒`, stopped: "已停止",
    copied: "已复制", waiting: "等待第一个词元",
  },
};
const $ = id => document.getElementById(id);
const kept = {
  get(name, other) {
    try { return JSON.parse(localStorage.getItem("sluice." + name)) ?? other; }
    catch { return other; }
  },
  set(name, value) {
    try { localStorage.setItem("sluice." + name, JSON.stringify(value)); }
    catch { /* no storage: nothing is kept */ }
  },
};
let language = kept.get("language", navigator.language.startsWith("zh") ? "zh" : "en");
let mode = "text", props = null, running = null, talk = kept.get("talk", []);
let past = kept.get("past", []);

const say = (name, ...args) => {
  const word = words[language][name];
  return typeof word === "function" ? word(...args) : word;
};

function relabel() {
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll("[data-say]"))
    node.textContent = say(node.dataset.say);
  $("language").textContent = language === "zh" ? "English" : "中文";
  $("language").lang = language === "zh" ? "en" : "zh";
  $("mask-hint").textContent = props && props.fills_blanks ? say("masks") : say("onward");
}

function setMode(to) {
  mode = to;
  $("text-pane").hidden = mode !== "text";
  $("chat-pane").hidden = mode !== "chat";
  $("mode-text").setAttribute("aria-pressed", mode === "text");
  $("mode-chat").setAttribute("aria-pressed", mode === "chat");
}

function headers() {
  const h = { "Content-Type": "application/json" };
  if ($("key").value) h.Authorization = "Bearer " + $("key").value;
  return h;
}

function status(text, wrong) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", Boolean(wrong));
}

/* --- the model ----------------------------------------------------------- */

async function learn() {
  try {
    const answer = await fetch("props", { headers: headers() });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error.message);
    props = body;
  } catch (why) {
    status(why.message, true);
    $("settings").open = true;
    return;
  }
  status("");
  $("model").textContent = props.model + " · " + props.what;
  for (const [name, value] of Object.entries({
    max_tokens: Math.min(props.max_tokens, 128), temperature: props.sampling.temperature,
    top_p: props.sampling.top_p, top_k: props.sampling.top_k }))
    if ($(name).value === "") $(name).value = value;
  $("base-hint").hidden = props.trained_to_chat;
  if (!$("prompt").value)
    $("prompt").value = props.fills_blanks ? "In the beginning [MASK] created the heaven and the earth." : "";
  relabel();
}

/* --- asking -------------------------------------------------------------- */

function settings() {
  const body = { stream: true, stream_options: { include_usage: true } };
  for (const name of ["max_tokens", "temperature", "top_p", "top_k", "seed"])
    if ($(name).value !== "") body[name] = Number($(name).value);
  if ($("stops").value) body.stop = $("stops").value;
  return body;
}

/* The events of a stream, each as it comes. */
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    for (let end; (end = held.indexOf("\n\n")) >= 0; held = held.slice(end + 2))
      for (const line of held.slice(0, end).split("\n"))
        if (line.startsWith("data: ") && line !== "data: [DONE]")
          yield JSON.parse(line.slice(6));
  }
}

function span(seconds) {
  if (seconds < 90) return Math.ceil(seconds) + " s";
  if (seconds < 5400) return Math.round(seconds / 60) + " min";
  return (seconds / 3600).toFixed(1) + " h";
}

function tellProgress(p, run) {
  const parts = [];
  if (p.queue > 0) parts.push(say("queue", p.queue));
  else if (p.read_tokens < p.prompt_tokens) parts.push(say("read", p.read_tokens, p.prompt_tokens));
  else parts.push(say("said", Math.max(p.said_tokens, run.n), p.most_tokens));
  if (p.sweep_seconds) {
    run.sweep = p.sweep_seconds;
    parts.push(say("pace", p.sweep_seconds.toPrecision(2)));
    if (props.floor_seconds)
      parts.push(say("floor", Math.round(100 * props.floor_seconds / p.sweep_seconds)));
  }
  if (p.seconds_left !== null) parts.push(say("left", span(p.seconds_left)));
  $("bar").value = p.done;
  status(parts.join(" · "));
}

async function ask(path, body, hear) {
  const run = { stop: new AbortController(), n: 0, begun: performance.now() };
  running = run;
  $("go").disabled = true;
  $("stop").disabled = false;
  $("bar").hidden = false;
  $("bar").value = 0;
  status(say("waiting"));
  try {
    const answer = await fetch(path, {
      method: "POST", headers: headers(), body: JSON.stringify(body), signal: run.stop.signal,
    });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    const expected = Number(answer.headers.get("X-Expected-Seconds"));
    if (expected > 0) status(say("left", span(expected)));
    for await (const event of events(answer)) {
      if (event.error) throw new Error(event.error.message);
      if (event.progress) tellProgress(event.progress, run);
      if (event.usage) run.n = event.usage.completion_tokens;
      for (const choice of event.choices ?? []) {
        const text = choice.text ?? choice.delta?.content ?? "";
        const thought = choice.delta?.reasoning_content ?? "";
        if (text || thought) {
          run.n++;
          $("bar").value = Math.min(1, run.n / body.max_tokens);
          if (!event.progress) status(say("said", run.n, body.max_tokens));
        }
        hear(text, choice.blank ?? 0, thought);
      }
    }
    status(say("done", run.n, ((performance.now() - run.begun) / 1000).toFixed(1)));
  } catch (why) {
    if (why.name === "AbortError") status(say("stopped"));
    else status(why.message, true);
  }
  running = null;
  $("go").disabled = false;
  $("stop").disabled = true;
  $("bar").hidden = true;
}

/* --- text and its blanks ------------------------------------------------- */

/* Of several kinds of marks the first of this order is filled. */
function cut(text) {
  if (!props.fills_blanks) return [text, ""];
  const mark = ["[MASK]", "[sMASK]", "[gMASK]"].find(m => text.includes(m));
  return mark ? text.split(mark) : [text, ""];
}

/* The text with a place for each blank; returns the places. */
function lay(text) {
  const pieces = cut(text), blanks = [];
  $("result").replaceChildren();
  pieces.forEach((piece, i) => {
    $("result").append(piece);
    if (i + 1 === pieces.length) return;
    const blank = document.createElement("span");
    blank.className = "blank waiting";
    blank.textContent = "…";
    blanks.push(blank);
    $("result").append(blank);
  });
  return blanks;
}

async function complete() {
  const prompt = $("prompt").value, blanks = lay(prompt);
  if (!prompt) return;
  await ask("v1/completions", { ...settings(), prompt }, (text, at) => {
    const blank = blanks[Math.min(at, blanks.length - 1)];
    if (!text) return;
    if (blank.classList.contains("waiting")) {
      blank.classList.remove("waiting");
      blank.textContent = "";
    }
    blank.append(text);
  });
  for (const blank of blanks)
    if (blank.classList.contains("waiting")) blank.textContent = "";
  remember({ mode, prompt, said: $("result").textContent });
}

/* --- chat ---------------------------------------------------------------- */

function paragraph(kind, text) {
  const p = document.createElement("p");
  p.className = kind;
  p.textContent = text;
  $("talk").append(p);
  return p;
}

function showTalk() {
  $("talk").replaceChildren();
  for (const m of talk) paragraph(m.role, m.content);
}

async function chat() {
  const content = $("question").value.trim();
  if (!content) return;
  $("question").value = "";
  talk.push({ role: "user", content });
  showTalk();
  const messages = $("system").value
    ? [{ role: "system", content: $("system").value }, ...talk] : talk;
  let thinking = null, p = null;
  await ask("v1/chat/completions", { ...settings(), messages }, (text, at, thought) => {
    if (thought) (thinking ??= paragraph("thinking", "")).append(thought);
    if (text) (p ??= paragraph("assistant", "")).append(text);
  });
  if (p) talk.push({ role: "assistant", content: p.textContent });
  kept.set("talk", talk);
  remember({ mode, prompt: content, said: p ? p.textContent : "", talk: [...talk] });
}

/* --- history ------------------------------------------------------------- */

function showPast() {
  $("past").replaceChildren();
  for (const item of past) {
    const li = document.createElement("li"), b = document.createElement("button");
    b.type = "button";
    b.textContent = item.prompt + " → " + item.said;
    b.addEventListener("click", () => recall(item));
    li.append(b);
    $("past").append(li);
  }
}

function remember(item) {
  past.unshift(item);
  past = past.slice(0, 50);
  kept.set("past", past);
  showPast();
}

function recall(item) {
  setMode(item.mode);
  if (item.mode === "text") {
    $("prompt").value = item.prompt;
    $("result").textContent = item.said;
  } else {
    talk = [...item.talk];
    showTalk();
  }
}

/* --- keys and buttons ---------------------------------------------------- */

function go() {
  if (running || !props) return;
  if (mode === "text") complete();
  else chat();
}

function halt() {
  running?.stop.abort();
}

$("mode-text").addEventListener("click", () => setMode("text"));
$("mode-chat").addEventListener("click", () => setMode("chat"));
$("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  kept.set("language", language);
  relabel();
});
$("go").addEventListener("click", go);
$("stop").addEventListener("click", halt);
$("copy").addEventListener("click", async () => {
  const said = mode === "text" ? $("result").textContent
    : talk.map(m => m.content).join("\n\n");
  try { await navigator.clipboard.writeText(said); status(say("copied")); }
  catch (why) { status(why.message, true); }
});
$("clear").addEventListener("click", () => {
  if (mode === "text") {
    $("prompt").value = "";
    $("result").replaceChildren();
  } else {
    talk = [];
    kept.set("talk", talk);
    showTalk();
  }
});
$("forget").addEventListener("click", () => {
  past = [];
  kept.set("past", past);
  showPast();
});
$("key").value = sessionStorage.getItem("sluice.key") ?? "";
$("key").addEventListener("change", () => {
  sessionStorage.setItem("sluice.key", $("key").value);
  learn();
});
document.addEventListener("keydown", e => {
  if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) { e.preventDefault(); go(); }
  if (e.key === "Escape") halt();
});
relabel();
setMode("text");
showTalk();
showPast();
learn();
