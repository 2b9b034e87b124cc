// Requests to the server that the page came from.

/** An error whose message can be shown to a person. */
export class ServerError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** What the server says about its model. */
export function info() {
  return request("info", {});
}

/** Answer a question and say which words each layer dropped. */
export function explain(body, signal) {
  return request("explain", post(body, signal));
}

/** Answer a question once more; returns the milliseconds that the server took. */
export async function time({ question, context, length_config_name: length_config }, signal) {
  const body = { inputs: { question, context }, parameters: { length_config } };
  const response = await send("predict", post(body, signal));
  return Number(/dur=([\d.]+)/.exec(response.headers.get("Server-Timing"))[1]);
}

function post(body, signal) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
}

async function request(path, options) {
  return (await send(path, options)).json();
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server cannot be reached. Is it running?");
  }
  if (response.ok) return response;
  throw new ServerError(inWords(response, await response.json().catch(() => ({}))), response.status);
}

function inWords(response, body) {
  const seconds = response.headers.get("Retry-After");
  const again = seconds ? `Try again in ${seconds} s.` : "Try again in a moment.";
  const detail = body.error ? ` The server says: ${body.error}` : "";
  switch (response.status) {
    case 400:
    case 422:
      return `The server cannot use this input.${detail}`;
    case 413:
      return `The text is too long for this server.${detail}`;
    case 429:
      return `The server is busy: too many questions are waiting. ${again}`;
    case 503:
      return body.error_type === "starting"
        ? "The server is still loading its model."
        : `The server takes no questions now. ${again}${detail}`;
    case 504:
      return `There was no answer in time. ${again}`;
    default:
      return `The server failed (HTTP ${response.status}).${detail}`;
  }
}
