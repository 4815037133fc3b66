// Requests at a constant rate (k6's constant-arrival-rate), for ops/tools/lab/k6.py.
import exec from "k6/execution";
import http from "k6/http";

const paths = JSON.parse(open(__ENV.PATHS));
const rate = Number(__ENV.RATE);
const connections = Math.max(50, Math.ceil(rate / 5)); // enough for answers that take 200 ms

export const options = {
  discardResponseBodies: true,
  summaryTrendStats: ["med", "p(95)", "p(99)", "max"],
  scenarios: {
    open_loop: {
      executor: "constant-arrival-rate",
      rate,
      timeUnit: "1s",
      duration: `${__ENV.SECONDS}s`,
      preAllocatedVUs: connections,
    },
  },
};

export default function () {
  const path = paths[exec.scenario.iterationInTest % paths.length];
  http.get(__ENV.URL + path, { timeout: "5s", tags: { name: "target" } });
}
