import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A model on the server: contents by path. Those in `large` are announced with SHA-256 and served after a redirect. */
export interface ServedModel {
  readonly files: Readonly<Record<string, Buffer>>;
  readonly large?: readonly string[];
  readonly commit?: string;
}

/** What may go wrong with a request; true when it has been answered. */
export type Fault = (request: IncomingMessage, response: ServerResponse) => boolean;

/** A server that answers like the Hugging Face hub (under `/`) and like ModelScope (under `/api/v1`). */
export class HubServer {
  /** Method and path of every request, with its range. */
  readonly requests: string[] = [];
  readonly authorizations: (string | undefined)[] = [];
  fault: Fault = () => false;
  readonly #server: Server;

  private constructor(private readonly models: Readonly<Record<string, ServedModel>>) {
    this.#server = createServer((request, response) => {
      const { range } = request.headers;
      this.requests.push(`${request.url!.split('?')[0]!}${range === undefined ? '' : ` ${range}`}`);
      this.authorizations.push(request.headers.authorization);
      if (!this.fault(request, response)) this.#answer(request, response);
    });
  }

  static async start(models: Readonly<Record<string, ServedModel>>): Promise<HubServer> {
    const server = new HubServer(models);
    await new Promise<void>((resolve) => server.#server.listen(0, '127.0.0.1', resolve));
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url!, this.url);
    const [, org, name] = /^\/(?:cdn\/|api\/v1\/models\/|api\/models\/)?([^/]+)\/([^/]+)/u.exec(url.pathname) ?? [];
    const model = this.models[`${org}/${name}`];
    if (model === undefined) {
      json(response, 401, { error: 'Invalid username or password.' });
      return;
    }
    const commit = model.commit ?? 'c'.repeat(40);
    const large = new Set(model.large);
    const rest = url.pathname
      .split('/')
      .slice(url.pathname.startsWith('/cdn') || !url.pathname.startsWith('/api') ? 3 : 5);
    if (url.pathname.startsWith('/api/v1/')) {
      if (url.pathname.endsWith('/files')) json(response, 200, { Code: 200, Data: { Files: scopeFiles(model) } });
      else sendFile(request, response, model.files[url.searchParams.get('FilePath')!]!);
    } else if (url.pathname.startsWith('/api/models/')) {
      const [, , , , , what, revision] = url.pathname.split('/');
      if (revision !== 'main' && revision !== commit) json(response, 404, { error: `Invalid rev id: ${revision}` });
      else if (what === 'revision') json(response, 200, { _id: '1', id: `${org}/${name}`, sha: commit });
      else json(response, 200, treeOf(model, large));
    } else if (url.pathname.startsWith('/cdn/')) {
      sendFile(request, response, model.files[rest.at(-1)!]!);
    } else {
      const path = rest.at(-1)!;
      const content = model.files[path];
      if (content === undefined) response.writeHead(404).end();
      else if (large.has(path)) response.writeHead(302, { location: `/cdn/${org}/${name}/${path}` }).end();
      else sendFile(request, response, content);
    }
  }
}

const treeOf = ({ files }: ServedModel, large: ReadonlySet<string>): unknown[] => [
  { type: 'directory', oid: 'd'.repeat(40), size: 0, path: 'onnx' },
  ...Object.entries(files).map(([path, content]) => ({
    type: 'file',
    path,
    size: content.length,
    oid: createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex'),
    ...(large.has(path) && { lfs: { oid: sha256(content), size: content.length, pointerSize: 130 } }),
  })),
];

const scopeFiles = ({ files }: ServedModel): unknown[] =>
  Object.entries(files).map(([path, content]) => ({
    Name: path,
    Path: path,
    Type: 'blob',
    Size: content.length,
    Sha256: sha256(content),
  }));

const sha256 = (content: Buffer): string => createHash('sha256').update(content).digest('hex');

function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

/** Answers like a server for static files; `upTo` cuts the connection at that byte of the file. */
export function sendFile(
  request: IncomingMessage,
  response: ServerResponse,
  content: Buffer,
  upTo = content.length,
): void {
  const start = Number(/^bytes=(\d+)-$/u.exec(request.headers.range ?? '')?.[1] ?? 0);
  response.writeHead(start > 0 ? 206 : 200, {
    'content-length': content.length - start,
    ...(start > 0 && { 'content-range': `bytes ${start}-${content.length - 1}/${content.length}` }),
  });
  if (upTo >= content.length) response.end(content.subarray(start));
  else response.write(content.subarray(start, upTo), () => request.socket.end());
}
