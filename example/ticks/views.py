"""The page and its JSON counterparts."""

import json
import uuid
from datetime import timedelta
from typing import Any

from django import forms
from django.db.models import Count, Max, Min, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe
from django_celery_results.models import TaskResult
from kombu.exceptions import OperationalError

from ticks.forms import FORMS, AddForm, SlowForm
from ticks.models import Tick

PAGE_TICKS = 20
PAGE_RESULTS = 10
API_TICKS = 100
API_TICKS_MAX = 5000
# The page looks at the senders of so many minutes.
WINDOW_MINUTES = 5
# A sender of the one-second entry that was silent for longer does not count as active.
SILENCE_SECONDS = 5
FINAL_STATES = {"SUCCESS", "FAILURE", "REVOKED", "IGNORED"}

TICK_FIELDS = (
    "task_id",
    "task",
    "entry",
    "scheduled",
    "sent",
    "sequence",
    "sender_host",
    "sender_pid",
    "sender_started",
    "received",
    "worker_host",
    "worker_pid",
    "deliveries",
)


def schedulers() -> list[dict[str, Any]]:
    """Return who sent the one-second ticks of the last minutes, the latest first.

    Each has host, pid, started, ticks, missing (holes in its sequence), last_sent, age (of its
    last tick, in seconds) and active: it still ticks, and nobody began after its last tick.
    """
    now = timezone.now()
    senders = list(
        Tick.objects.filter(entry="tick-second", sent__gte=now - timedelta(minutes=WINDOW_MINUTES))
        .values("sender_host", "sender_pid", "sender_started")
        .annotate(
            ticks=Count("sequence", distinct=True),
            lowest=Min("sequence"),
            highest=Max("sequence"),
            first_sent=Min("sent"),
            last_sent=Max("sent"),
        )
        .order_by("-last_sent")
    )
    latest_start = max((sender["first_sent"] for sender in senders), default=now)
    return [
        {
            "host": sender["sender_host"],
            "pid": sender["sender_pid"],
            "started": sender["sender_started"],
            "ticks": sender["ticks"],
            "missing": sender["highest"] - sender["lowest"] + 1 - sender["ticks"],
            "last_sent": sender["last_sent"],
            "age": round((now - sender["last_sent"]).total_seconds(), 1),
            "active": sender["last_sent"] >= latest_start
            and now - sender["last_sent"] < timedelta(seconds=SILENCE_SECONDS),
        }
        for sender in senders
    ]


def describe(result: TaskResult) -> dict[str, Any]:
    """Return a task result as the page and the API show it; an error without its traceback."""
    value = json.loads(result.result) if result.result else None
    if result.status == "FAILURE" and isinstance(value, dict):
        value = f"{value.get('exc_type')}: {' '.join(map(str, value.get('exc_message', [])))}"
    elif result.status == "STARTED":
        # Celery keeps the worker's pid here while a task runs.
        value = None
    return {
        "id": result.task_id,
        "name": result.task_name,
        "args": json.loads(result.task_args).replace(",)", ")") if result.task_args else None,
        "state": result.status,
        "result": value,
        "worker": result.worker,
        "created": result.date_created,
        "started": result.date_started,
        "done": result.date_done if result.status in FINAL_STATES else None,
        "final": result.status in FINAL_STATES,
    }


def find_task(task_id: uuid.UUID) -> dict[str, Any]:
    """Return the task's description; one that no worker has reported on is pending."""
    result = TaskResult.objects.filter(task_id=task_id).first()
    return describe(result or TaskResult(task_id=str(task_id), status="PENDING"))


def page(request: HttpRequest, bound: forms.Form | None = None, error: str = "") -> HttpResponse:
    """Render the page, with `bound` in place of its form and an `error` above the forms."""
    found = schedulers()
    results: QuerySet[TaskResult] = TaskResult.objects.order_by("-date_created", "-id")
    context = {
        "now": timezone.now(),
        "schedulers": found,
        "active": [scheduler for scheduler in found if scheduler["active"]],
        "window_minutes": WINDOW_MINUTES,
        "ticks": Tick.objects.all()[:PAGE_TICKS],
        "results": [describe(result) for result in results[:PAGE_RESULTS]],
        "forms": {
            name: bound if isinstance(bound, form) else form() for name, form in FORMS.items()
        },
        "error": error,
    }
    status = 503 if error else 400 if bound else 200
    return render(request, "ticks/index.html", context, status=status)


def enqueue(form: AddForm | SlowForm) -> str:
    """Queue the task of a valid form and return its id; a visitor does not wait for retries."""
    return form.task.apply_async(tuple(form.cleaned_data.values()), retry=False).id


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    return page(request)


@require_POST
def task_create(request: HttpRequest) -> HttpResponse:
    """Queue the task of the posted form and show it."""
    form_class = FORMS.get(request.POST.get("task", ""))
    if form_class is None:
        return HttpResponse("No such task.", status=400, content_type="text/plain")
    form = form_class(request.POST)
    if not form.is_valid():
        return page(request, bound=form)
    try:
        task_id = enqueue(form)
    except OperationalError:
        return page(request, bound=form, error="The broker does not answer. Try again later.")
    return redirect("task-detail", task_id=task_id)


@require_safe
def task_detail(request: HttpRequest, task_id: uuid.UUID) -> HttpResponse:
    task = find_task(task_id)
    if request.GET.get("format") == "json":
        return JsonResponse(task)
    return render(request, "ticks/task.html", {"task": task})


@require_safe
def api_ticks(request: HttpRequest) -> JsonResponse:
    """Return the latest `limit` ticks, the latest first, and the recent schedulers."""
    try:
        limit = int(request.GET.get("limit", API_TICKS))
    except ValueError:
        limit = 0
    if not 1 <= limit <= API_TICKS_MAX:
        return JsonResponse({"error": f"limit: a number from 1 to {API_TICKS_MAX}"}, status=400)
    ticks = list(Tick.objects.values(*TICK_FIELDS)[:limit])
    return JsonResponse({"now": timezone.now(), "schedulers": schedulers(), "ticks": ticks})


@require_POST
def api_tasks(request: HttpRequest) -> JsonResponse:
    """Queue `{"task": name, "args": [...]}`; needs the page's CSRF cookie and X-CSRFToken."""
    try:
        wanted = json.loads(request.body)
        form_class = FORMS[wanted["task"]]
        args = list(wanted["args"])
    except (ValueError, KeyError, TypeError):
        return JsonResponse({"error": 'send {"task": "add", "args": [2, 3]}'}, status=400)
    names = list(form_class.base_fields)
    if len(args) != len(names):
        return JsonResponse({"error": f"args: {', '.join(names)}"}, status=400)
    form = form_class(dict(zip(names, map(str, args), strict=True)))
    if not form.is_valid():
        return JsonResponse({"error": form.errors}, status=400)
    try:
        task_id = enqueue(form)
    except OperationalError:
        return JsonResponse({"error": "the broker does not answer"}, status=503)
    return JsonResponse({"id": task_id, "url": reverse("task-detail", args=[task_id])}, status=202)
