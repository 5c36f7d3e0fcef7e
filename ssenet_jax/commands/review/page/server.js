// What the page asks the server for. Addresses are relative: the token stays in the path of the page.

export class Refused extends Error {
  constructor(status, body) {
    super(body.error || `the server answered ${status}`);
    this.status = status;
    this.body = body;
  }
}

async function fetched(path, values, options) {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== undefined);
  let response;
  try {
    response = await fetch(`${path}?${new URLSearchParams(given)}`, options);
  } catch {
    throw new Refused(0, { error: "the server does not answer" });
  }
  if (response.ok) return response;
  throw new Refused(response.status, await response.json().catch(() => ({})));
}

export const json = async (path, values = {}) => (await fetched(path, values)).json();
export const bytes = async (path, values = {}) => (await fetched(path, values)).arrayBuffer();
export const address = (path, values) => `${path}?${new URLSearchParams(values)}`;

// A decision of null takes back the one that there is.
export async function send(id, { decision, alpha, labels }, known) {
  const values = { id, decision, alpha, known };
  const options = decision ? { method: "PUT", body: labels } : { method: "DELETE" };
  return (await fetched("decision", values, options)).json();
}

// Saves of one photo, one at a time; while one is under way only the newest of those that follow is kept.
export class Saver {
  constructor(id, known, { onState, onSaved, onConflict }) {
    Object.assign(this, { id, known, onState, onSaved, onConflict, waiting: null, running: false, held: false, savedAt: 0 });
  }

  get busy() {
    return this.running || this.waiting !== null;
  }

  push(save) {
    this.waiting = save;
    if (this.held) this.ask();
    else if (!this.running) this.run();
  }

  // Nothing is saved before a conflict is answered.
  ask() {
    this.onState("conflict");
    this.onConflict(this.current);
  }

  // After a conflict: what this page has takes the place of what the other left.
  overwrite(known) {
    Object.assign(this, { known, held: false });
    return this.waiting ? this.run() : null;
  }

  drop(known) {
    Object.assign(this, { known, held: false, waiting: null });
  }

  async run() {
    this.running = true;
    while (this.waiting && !this.held) {
      const save = this.waiting;
      this.waiting = null;
      this.onState("saving");
      try {
        const row = await send(this.id, save, this.known);
        this.known = row ? row.time : "";
        this.savedAt = performance.now();
        this.onSaved(row);
        if (!this.waiting) this.onState("saved");
      } catch (error) {
        this.waiting ??= save;
        await this.failed(error);
      }
    }
    this.running = false;
  }

  async failed(error) {
    if (error.status === 409) {
      Object.assign(this, { held: true, current: error.body.current });
      this.ask();
      return;
    }
    const gone = error.status === 0 || error.status === 403;
    this.onState("failed", gone ? "Run ssenet review again and open the address that it prints." : error.message);
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}
