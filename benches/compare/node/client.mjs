// The same client as the others, with graphql-ws on node: the job and the server's ports come as JSON, a report of the
// same shape is printed. CPU time is that of all threads of the process, the garbage collector's included.
import { createClient } from "graphql-ws";
import net from "node:net";
import { readFileSync } from "node:fs";
import WebSocket from "ws";

const [job, ports] = process.argv.slice(2).map((text) => JSON.parse(text));
const [kind, task] = typeof job.task === "string" ? [job.task, {}] : Object.entries(job.task)[0];
const phases = {
  Blast: () => [task.warm_up, task.events],
  Pace: () => [1, (task.burst * task.bursts) / job.subscriptions],
  Idle: () => [1, 0],
  Reissue: () => [0, 0],
}[kind]().map((events) => events * job.subscriptions);

const STAMP_BASE = 1e15;
const DEADLINE = 100_000;
const QUERY = "subscription Trades($symbol: String) { trades(symbol: $symbol) { at symbol price size side } }";

const fail = (error) => {
  console.error(error);
  process.exit(1);
};
setTimeout(() => fail("ended by its deadline"), DEADLINE).unref();

const control = net.connect(ports.control, "127.0.0.1");
control.setNoDelay(true);
const notices = [];
let wanted;
let partial = "";
control.on("data", (bytes) => {
  const lines = (partial + bytes).split("\n");
  partial = lines.pop();
  notices.push(...lines.map((line) => JSON.parse(line)));
  wanted?.();
});
const notice = async () => {
  while (notices.length === 0) await new Promise((resolve) => (wanted = resolve));
  return notices.shift();
};
const go = () => control.write("go\n");
const settle = () => new Promise((resolve) => setTimeout(resolve, 100));
const cpu = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) * 1000;
};
const resident = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1]) * 1024;

const client = createClient({
  url: `ws://127.0.0.1:${ports.socket}/`,
  webSocketImpl: WebSocket,
  retryAttempts: Infinity,
  retryWait: () => new Promise((resolve) => setTimeout(resolve, 1)),
  shouldRetry: () => true,
});

let seen = 0;
let passed;
const latencies = [];
const next = ({ data }) => {
  const event = data.tick ?? data.trades;
  if (kind === "Pace") {
    const sent = (Array.isArray(event) ? event[0] : event).at - STAMP_BASE;
    if (sent > 0) latencies.push(Number(process.hrtime.bigint()) - sent);
  }
  seen += 1;
  passed?.();
};
const reached = (events) =>
  new Promise((resolve) => {
    passed = () => seen >= events && resolve();
    passed();
  });
const sink = { next, error: fail, complete: () => fail("completed") };
const subscribe = (from, to) => {
  for (let n = from; n < to; n += 1) {
    const symbol = `SYM${String(n).padStart(6, "0")}`;
    client.subscribe({ query: QUERY, operationName: "Trades", variables: { symbol } }, sink);
  }
};
const percentile = (share) => latencies[Math.min(Math.floor(latencies.length * share), latencies.length - 1)];

const report = {};
if (kind === "Blast" || kind === "Pace") {
  subscribe(0, job.subscriptions);
  await notice();
  await reached(phases[0]);
  const [before, start] = [cpu(), process.hrtime.bigint()];
  go();
  await reached(phases[0] + phases[1]);
  report.cpu_nanos = cpu() - before;
  report.wall_nanos = Number(process.hrtime.bigint() - start);
  if (kind === "Pace") {
    latencies.sort((a, b) => a - b);
    report.latency = [0.5, 0.99, 0.999].map(percentile);
  }
} else if (kind === "Idle") {
  subscribe(0, 1);
  await notice();
  const before = resident();
  subscribe(1, job.subscriptions);
  await notice();
  await settle();
  const subscribed = resident() - before;
  go();
  await reached(phases[0]);
  report.resident = [subscribed, resident() - before].map((bytes) => Math.max(0, bytes));
} else {
  subscribe(0, job.subscriptions);
  await notice();
  report.reissues = [];
  for (let round = 0; round < task.rounds; round += 1) {
    await settle();
    const before = cpu();
    go();
    const { Reissued } = await notice();
    report.reissues.push({ ...Reissued, cpu_nanos: cpu() - before });
  }
}
console.log(JSON.stringify(report));
process.exit(0);
