"use strict";

// Everything that comes from the API is put into the page with textContent alone.

const API = "/api/v1";
const EVERY_MS = 5000;
const element = (id) => document.getElementById(id);

function headers() {
  const token = sessionStorage.getItem("token");
  return token ? { Authorization: "Bearer " + token } : {};
}

async function call(path, body) {
  const options = { headers: headers() };
  if (body) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await fetch(API + path, options);
  if (response.status === 401) {
    element("sign-in").hidden = false;
    throw new Error("a token is needed");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail || response.statusText);
  return answer;
}

function cell(row, text, name) {
  const td = document.createElement(row.parentNode.tagName === "THEAD" ? "th" : "td");
  if (text instanceof Node) td.append(text);
  else td.textContent = text === null || text === undefined ? "" : String(text);
  if (name) td.className = name;
  row.append(td);
}

function table(place, titles, items, fill) {
  const box = element(place);
  box.replaceChildren();
  if (items.length === 0) {
    const none = document.createElement("p");
    none.className = "empty";
    none.textContent = "none";
    box.append(none);
    return;
  }
  const out = document.createElement("table");
  const head = out.createTHead().insertRow();
  titles.forEach((title) => cell(head, title));
  const body = out.createTBody();
  items.forEach((item) => fill(body.insertRow(), item));
  box.append(out);
}

function button(label, act) {
  const made = document.createElement("button");
  made.textContent = label;
  made.addEventListener("click", async () => {
    made.disabled = true;
    try { await act(); } catch (error) { element("state").textContent = error.message; }
    refresh();
  });
  return made;
}

const known = ["low", "medium", "high", "critical"];
const severity = (word) => (known.includes(word) ? word : "");
const when = (text) => (text ? new Date(text).toLocaleString() : "");
const days = (seconds) =>
  typeof seconds !== "number" ? "" :
  seconds < 5400 ? Math.round(seconds / 60) + " min" :
  seconds < 172800 ? Math.round(seconds / 3600) + " h" :
  Math.round(seconds / 86400) + " d";

async function refresh() {
  try {
    const [status, assets, alarms, decisions, orders] = await Promise.all([
      call("/status"), call("/assets?limit=1000"), call("/alarms?open=true"),
      call("/decisions?open=true"), call("/work-orders?open=true"),
    ]);
    element("sign-in").hidden = true;
    element("gateway").textContent = status.site + " / " + status.gateway;
    element("state").textContent = status.ready ? "ready" : status.reasons.join("; ");
    table("decisions", ["asset", "question", "deadline", ""], decisions.items, (row, item) => {
      cell(row, item.asset);
      cell(row, item.question, severity(item.severity));
      cell(row, when(item.deadline));
      const buttons = document.createElement("span");
      for (const choice of ["approve", "reject", "defer"]) {
        buttons.append(button(choice, () =>
          call("/decisions/" + encodeURIComponent(item.id), { decision: choice, by: "dashboard" })));
      }
      cell(row, buttons);
    });
    table("alarms", ["asset", "tag", "severity", "message", "since", ""], alarms.items, (row, item) => {
      cell(row, item.asset);
      cell(row, item.tag);
      cell(row, item.severity, severity(item.severity));
      cell(row, item.message);
      cell(row, when(item.raised));
      const waits = ["unacknowledged", "returned-unacknowledged"].includes(item.state);
      cell(row, waits ? button("acknowledge", () =>
        call("/alarms/" + encodeURIComponent(item.id) + "/ack", { by: "dashboard" })) : item.state);
    });
    table("assets", ["asset", "name", "class", "phase", "health", "worst alarm", "left (median)"],
      assets.items, (row, item) => {
        cell(row, item.id);
        cell(row, item.name);
        cell(row, item.class);
        cell(row, item.phase);
        cell(row, typeof item.health_index === "number" ? Math.round(item.health_index * 100) + " %" : "");
        cell(row, item.worst_alarm, severity(item.worst_alarm));
        cell(row, days(item.rul_p50));
      });
    table("orders", ["asset", "task", "technician", "start", "state"], orders.items, (row, item) => {
      cell(row, item.asset);
      cell(row, item.task);
      cell(row, item.technician);
      cell(row, when(item.start));
      cell(row, item.state);
    });
  } catch (error) {
    element("state").textContent = error.message;
  }
}

element("use").addEventListener("click", () => {
  sessionStorage.setItem("token", element("token").value);
  element("token").value = "";
  refresh();
});
refresh();
setInterval(refresh, EVERY_MS);
