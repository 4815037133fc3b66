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

// What users ask for: a page, the one after it, a page of another path with some fields only, one product.
export function setup() {
  const page = http.get(`${service}/api/products`, { responseType: "text" });
  if (page.status !== 200) {
    throw new Error(`${service}/api/products answered ${page.status}: ${page.error || page.body}`);
  }
  const { next, results } = page.json();
  if (!next) {
    throw new Error(`${service}/api/products has fewer than two pages: seed some products first`);
  }
  return ["/api/products", next, "/api/products?sort=-low_price&fields=id,low_price", `/api/products/${results[0].id}`];
}

export default function (paths) {
  http.get(service + paths[exec.scenario.iterationInTest % paths.length], { timeout: "5s", tags: { name: "budget" } });
}
