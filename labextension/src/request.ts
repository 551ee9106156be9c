import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

export type Collection = 'packagings' | 'integrations' | 'connections';

export interface IResult {
  name: string;
  value: string;
}

/** An entity as the API returns it; fields of other kinds are absent. */
export interface IEntity {
  id: string;
  createdAt?: string;
  updatedAt?: string;
  spec: {
    integrationName?: string;
    artifactName?: string;
    arguments?: { [name: string]: unknown };
    type?: string;
    uri?: string;
    description?: string;
    vital?: boolean;
    defaultImage?: string;
  };
  status?: { state?: string; message?: string; reason?: string; exitCode?: number; results?: IResult[] };
}

export interface IOutcome {
  number: number;
  kind: string;
  id: string;
  done: 'created' | 'edited' | 'refused' | 'not sent';
  message: string;
}

export interface ITemplate {
  name: string;
  kind: string;
  text: string;
}

export interface IPage {
  items: IEntity[];
  more: boolean;
}

export interface IService {
  url: string;
  user?: { username?: string; email?: string };
}

/** An error response of the Jupyter server or of the API behind it. */
export class RequestError extends Error {
  constructor(
    message: string,
    readonly hint: string
  ) {
    super(message);
  }

  /** The message and the hint as one text. */
  static textOf(error: unknown): string {
    if (error instanceof RequestError && error.hint) {
      return `${error.message}\n${error.hint}`;
    }
    return error instanceof Error ? error.message : String(error);
  }
}

/** A client of the packager extension of the Jupyter server. */
export class Client {
  constructor(private readonly settings: ServerConnection.ISettings) {}

  service(): Promise<IService> {
    return this.json('service');
  }

  list(collection: Collection, page: number): Promise<IPage> {
    return this.json(`${collection}?page=${page}`);
  }

  get(collection: Collection, id: string): Promise<IEntity> {
    return this.json(`${collection}/${encodeURIComponent(id)}`);
  }

  delete(collection: Collection, id: string): Promise<{ message: string }> {
    return this.json(`${collection}/${encodeURIComponent(id)}`, { method: 'DELETE' });
  }

  async submit(text: string): Promise<IOutcome[]> {
    const answer = await this.json<{ outcomes: IOutcome[] }>('submit', {
      method: 'POST',
      body: JSON.stringify({ text })
    });
    return answer.outcomes;
  }

  async templates(): Promise<ITemplate[]> {
    return (await this.json<{ templates: ITemplate[] }>('templates')).templates;
  }

  /** Pass on the log of a packaging as it is written, until the packaging ends. */
  async follow(id: string, signal: AbortSignal, take: (text: string) => void): Promise<void> {
    const answer = await this.ask(`packagings/${encodeURIComponent(id)}/log?follow=true`, { signal });
    if (!answer.body) {
      return;
    }
    const reader = answer.body.getReader();
    const decoder = new TextDecoder();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      take(decoder.decode(part.value, { stream: true }));
    }
    take(decoder.decode());
  }

  private async json<T>(path: string, init: RequestInit = {}): Promise<T> {
    return (await this.ask(path, init)).json() as Promise<T>;
  }

  private async ask(path: string, init: RequestInit): Promise<Response> {
    const url = URLExt.join(this.settings.baseUrl, 'packager', path);
    const answer = await ServerConnection.makeRequest(url, { cache: 'no-store', ...init }, this.settings);
    if (!answer.ok) {
      const body = await answer.json().catch(() => ({}));
      throw new RequestError(body.message || `${answer.status} ${answer.statusText}`, body.hint ?? '');
    }
    return answer;
  }
}
