import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { HubApiError, HUB_URL, listFiles, modelInfo } from '@huggingface/hub';
import type { ModelId } from '../config/model-id.js';
import { patiently } from '../transfer/fetch-file.js';
import { apiFetch, notTheApi, refusalOf, unexpected, type Place } from './api.js';
import type { HubFile, Listing, ListingOptions } from './source.js';

/**
 * The files of a model on the Hugging Face hub, or the mirror that HF_ENDPOINT names, with the token of HF_TOKEN or of
 * `hf auth login`.
 */
export async function listHuggingFace({ name, revision = 'main' }: ModelId, options: ListingOptions): Promise<Listing> {
  const hubUrl = (process.env['HF_ENDPOINT'] ?? HUB_URL).replace(/\/+$/u, '');
  const token = await accessToken();
  const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const place: Place = {
    server: hubUrl === HUB_URL ? 'The Hugging Face hub' : hubUrl,
    model: revision === 'main' ? name : `${name}@${revision}`,
    url: `${hubUrl}/${name}`,
    login: 'accept its licence in a browser and set HF_TOKEN',
  };
  const common = { hubUrl, fetch: apiFetch(headers, options.signal) };
  return patiently(place.url, options, async () => {
    try {
      const { sha } = await modelInfo({ ...common, name, revision, additionalFields: ['sha'] });
      if (!/^[0-9a-f]{40}$/u.test(sha)) throw notTheApi(place);
      const files: HubFile[] = [];
      for await (const { type, path, size, lfs, oid } of listFiles({
        ...common,
        repo: { type: 'model', name },
        recursive: false,
        revision: sha,
      })) {
        if (type !== 'file') continue;
        const checksum =
          lfs === undefined
            ? ({ kind: 'git-blob', value: oid ?? '' } as const)
            : ({ kind: 'sha256', value: lfs.oid } as const);
        const url = `${hubUrl}/${name}/resolve/${sha}/${encodeURIComponent(path)}`;
        files.push({ path, bytes: lfs?.size ?? size, url, checksum });
      }
      return { commit: sha, files, headers, refusal: (status) => refusalOf(status, place) };
    } catch (error) {
      if (error instanceof HubApiError) {
        throw refusalOf(error.statusCode, place) ?? unexpected(error.statusCode, place);
      }
      throw error instanceof SyntaxError || error instanceof TypeError ? notTheApi(place, error) : error;
    }
  });
}

async function accessToken(): Promise<string | undefined> {
  const given = process.env['HF_TOKEN']?.trim();
  if (given !== undefined && given !== '') return given;
  const file = process.env['HF_TOKEN_PATH'] ?? join(hubHome(), 'token');
  const stored = await readFile(file, 'utf8').catch(() => '');
  return stored.trim() === '' ? undefined : stored.trim();
}

const hubHome = (): string =>
  process.env['HF_HOME'] ?? join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'huggingface');
