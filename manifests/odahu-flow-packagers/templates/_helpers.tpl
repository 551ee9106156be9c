{{- define "packagers.labels" -}}
app.kubernetes.io/name: packager
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* An integration's document with this installation's image and default connections.
     Takes (dict "root" $ "name" "docker-rest" "values" .Values.rest). */}}
{{- define "packagers.integration" -}}
{{- $values := .values -}}
{{- $document := .root.Files.Get (printf "integrations/%s.yaml" .name) | fromYaml -}}
{{- $_ := set $document.spec "defaultImage" ($values.image | default .root.Values.image) -}}
{{- $known := list -}}
{{- range $target := $document.spec.schema.targets -}}
  {{- $known = append $known $target.name -}}
  {{- with index $values.targets $target.name -}}
    {{- $_ := set $target "default" . -}}
  {{- end -}}
{{- end -}}
{{- range $name, $_ := $values.targets -}}
  {{- if not (has $name $known) -}}
    {{- fail (printf "%s has no target %q; it has %s" $document.id $name (join ", " $known)) -}}
  {{- end -}}
{{- end -}}
{{- toYaml $document -}}
{{- end }}

{{/* The egress of a NetworkPolicy: names, and TCP ports everywhere but in ranges that stay closed.
     Takes (dict "ports" (list 443) "blocked" (list "169.254.169.254/32")). */}}
{{- define "packagers.egress" -}}
{{- $blocked := .blocked -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
- ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  to:
    {{- range $everywhere := list "0.0.0.0/0" "::/0" }}
    - ipBlock:
        cidr: {{ $everywhere }}
        {{- $except := list }}
        {{- range $blocked }}
        {{- if eq (contains ":" .) (contains ":" $everywhere) }}
        {{- $except = append $except . }}
        {{- end }}
        {{- end }}
        {{- with $except }}
        except:
          {{- toYaml . | nindent 10 }}
        {{- end }}
    {{- end }}
{{- end }}

{{/* What tells the service's pods from others. */}}
{{- define "packagers.apiSelector" -}}
app.kubernetes.io/name: packager
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: api
{{- end }}

{{/* Refuses values of the service that can't work together, each with what to do. */}}
{{- define "packagers.checkApi" -}}
{{- $api := .Values.api -}}
{{- $postgres := $api.databaseUrlSecret.name -}}
{{- if and (gt (int $api.replicas) 1) (not $postgres) -}}
  {{- fail "api.replicas: more than one needs PostgreSQL; name the Secret with its URL in api.databaseUrlSecret.name" -}}
{{- end -}}
{{- if and $postgres (not $api.keySecret.name) -}}
  {{- fail "api.keySecret.name: with PostgreSQL name a Secret with the key that connections are sealed with (docs/how-to/api-service.md)" -}}
{{- end -}}
{{- if ne (empty $api.oidc.issuer) (empty $api.oidc.audience) -}}
  {{- fail "api.oidc: give issuer and audience, both; a token for another service must not do here" -}}
{{- end -}}
{{- if and $api.oidc.writeClaim (not $api.oidc.issuer) -}}
  {{- fail "api.oidc.writeClaim: needs api.oidc.issuer" -}}
{{- end -}}
{{- if not (or $api.tokensSecret.name $api.oidc.issuer) -}}
  {{- fail "api: the service must know its callers; name a Secret with tokens in api.tokensSecret.name, or give api.oidc" -}}
{{- end -}}
{{- if and $api.ingress.enabled (not $api.ingress.host) -}}
  {{- fail "api.ingress.host: name the host that the service is called by" -}}
{{- end -}}
{{- end }}
