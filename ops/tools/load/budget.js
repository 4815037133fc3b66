// The latency budget as a gate: requests due at a constant rate, however slow the answers are (k6's
// constant-arrival-rate). k6 exits with 99 if p99 reaches 10 ms, if one request fails, or if one that was due was not
// sent. `make load` runs it, and `docker compose run --rm k6`.
import http from "k6/http";
import exec from "k6/execution";

const service = __ENV.URL || "http://127.0.0.1:8000";
const rate = Number(__ENV.RATE || 500); // requests a second

export const options = {
  discardResponseBodies: true,
  summaryTrendStats: ["med", "p(95)", "p(99)", "max"],
  scenarios: {
    budget: {
      executor: "constant-arrival-rate",
      rate,
      timeUnit: "1s",
      duration: __ENV.DURATION || "30s",
      preAllocatedVUs: Math.max(50, Math.ceil(rate / 5)), // enough for answers that take 200 ms
    },
  },
  thresholds: {
    http_req_duration: ["p(99)<10"],
    http_req_failed: ["rate==0"],
    dropped_iterations: ["count==0"],
  },
};

// The users' requests, to each list of the OpenAPI document that has two pages: a page, the one after it, a page of
// another path with some fields only, one row.
export function setup() {
  const document = get("/api/openapi.json");
  const paths = Object.keys(document.paths).flatMap((path) => requests(path, document.paths));
  if (!paths.length) {
    throw new Error(`${service} has no list of two pages: seed some rows first`);
  }
  return paths;
}

function requests(path, paths) {
  const parameters = (paths[path].get && paths[path].get.parameters) || [];
  if (!parameters.some(({ name }) => name === "cursor")) {
    return [];
  }
  const { next, results } = get(path);
  if (!next) {
    return [];
  }
  const sorts = parameters.find(({ name }) => name === "sort").schema.enum.filter((sort) => sort.startsWith("-"));
  const sort = (sorts[1] || sorts[0]).slice(1);
  const item = Object.keys(paths).find((other) => other.startsWith(`${path}/{`));
  return [path, next, `${path}?sort=-${sort}&fields=id,${sort}`].concat(item ? `${path}/${results[0].id}` : []);
}

function get(path) {
  const answer = http.get(service + path, { responseType: "text" });
  if (answer.status !== 200) {
    throw new Error(`${service}${path} answered ${answer.status}: ${answer.error || answer.body}`);
  }
  return answer.json();
}

export default function (paths) {
  http.get(service + paths[exec.scenario.iterationInTest % paths.length], { timeout: "5s", tags: { name: "budget" } });
}
