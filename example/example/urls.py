"""URL map; /healthz is answered by `ticks.health.HealthMiddleware`."""

from django.urls import path
from ticks import views

urlpatterns = [
    path("", views.index, name="index"),
    path("tasks/", views.task_create, name="task-create"),
    path("tasks/<uuid:task_id>/", views.task_detail, name="task-detail"),
    path("api/ticks", views.api_ticks, name="api-ticks"),
    path("api/tasks", views.api_tasks, name="api-tasks"),
]
